"""Marking app rows as clean that are in the Store now, and leaving those alone that were edited meanwhile."""

from __future__ import annotations

from typing import Any

from django.db import OperationalError, transaction
from django.db.models import QuerySet

from morango_celery.reading.cursors import stream
from morango_celery.serialization.source import CHUNK_ROWS
from morango_celery.stream import chunked
from morango_celery.upstream import is_isolation_error


def mark_as_clean(queryset: QuerySet[Any]) -> None:
    """Clear the dirty bit of all rows of a query that nobody has changed since the transaction's snapshot.

    One statement, unless somebody has.
    """
    if _all_are_clean(queryset):
        return
    ids = queryset.order_by().values_list("pk", flat=True)
    for chunk in chunked(stream(ids, CHUNK_ROWS), CHUNK_ROWS):
        _mark_unchanged(queryset.model, chunk)


def _mark_unchanged(model: Any, ids: list[str]) -> None:
    if _all_are_clean(model.syncing_objects.filter(pk__in=ids)) or len(ids) == 1:
        return
    middle = len(ids) // 2
    _mark_unchanged(model, ids[:middle])
    _mark_unchanged(model, ids[middle:])


def _all_are_clean(queryset: QuerySet[Any]) -> bool:
    """Clear the dirty bits, or find that the database refuses it because of another's change."""
    try:
        with transaction.atomic():
            queryset.order_by().update(update_dirty_bit_to=False)
    except OperationalError as error:
        if not is_isolation_error(error):
            raise
        return False
    return True
