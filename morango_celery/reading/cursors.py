"""Rows of a query, a few in memory at a time, also behind a pooler that keeps only transactions together.

Django reads with a cursor of the server's, which may outlast a transaction, or with none: where
DISABLE_SERVER_SIDE_CURSORS is set, as it has to be behind such a pooler, all rows are in memory at once.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, TypeVar

from django.db import connection
from django.db.models import Model, QuerySet

from morango_celery.django_compat import read_with_server_cursor

_M = TypeVar("_M", bound=Model)


def stream(queryset: QuerySet[Any], chunk_rows: int) -> Iterator[Any]:
    """Return the items of ``queryset.iterator()``; in a transaction, with a cursor of the server's in any
    case."""
    if not connection.in_atomic_block:
        return queryset.iterator(chunk_size=chunk_rows)
    return read_with_server_cursor(queryset, chunk_rows)


def pages(queryset: QuerySet[_M], page_rows: int) -> Iterator[_M]:
    """Yield all rows by their primary key, with a query for each page: for use outside of transactions.

    Rows that are written meanwhile may turn up or not; none turns up twice.
    """
    page = list(queryset.order_by("pk")[:page_rows])
    while page:
        yield from page
        page = list(queryset.filter(pk__gt=page[-1].pk).order_by("pk")[:page_rows])
