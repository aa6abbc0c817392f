"""Morango's serialization, in a stream: local edits of app rows become Store rows."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from django.db import IntegrityError, OperationalError, connection
from django.db.models import QuerySet
from morango.models.certificates import Filter
from morango.models.core import DeletedModels, HardDeletedModels, InstanceIDModel, Store

from morango_celery.db.transactions import first_error_wins
from morango_celery.reading.sizes import CHUNK_BYTES
from morango_celery.serialize import sql
from morango_celery.serialize.dirty_bits import mark_as_clean
from morango_celery.serialize.sink import StoreSink
from morango_celery.serialize.source import CHUNK_ROWS, AppModelSource, RowSource
from morango_celery.serialize.sql import Saver
from morango_celery.serialize.update import Sized, StoreLookup, StoreUpdate
from morango_celery.stream import WeighedBuffer
from morango_celery.upstream import is_isolation_error, isolated_transaction

ATTEMPTS = 5


def serialize_into_store(
    profile: str,
    filter: Filter | None = None,  # noqa: A002  (Morango's name)
    *,
    on_begin: Callable[[], None] | None = None,
) -> None:
    """Bring local edits into the Store: new and changed app rows, deletions, counters.

    One transaction, REPEATABLE READ on PostgreSQL, under Morango's exclusive lock of the filter's
    partitions. An app row that is edited meanwhile is stored as it was, and stays dirty.

    That lock may be waited for, and the transaction's view of the data is older than the wait. So one
    that had to wait for another may come upon rows that it can't see; the next attempt does.

    :param filter: None for the whole profile
    :param on_begin: called first in the transaction, before the lock is waited for
    :raises MorangoDatabaseError: on PostgreSQL, inside an open transaction
    :raises OperationalError, InterfaceError: the database went away; or asks to try again, and keeps asking
    Cost: two statements per model; for those with edits three more, and three for every 500 edited rows, or
    fewer of large ones. One for each row that holds a large value.
    Twice: safe; there is nothing left to do then, but a counter is raised.
    """
    for left in reversed(range(ATTEMPTS)):
        try:
            _serialize(profile, filter, on_begin)
        except (IntegrityError, OperationalError) as error:
            came_across_another = isinstance(error, IntegrityError) or is_isolation_error(error)
            if not came_across_another or not left or connection.in_atomic_block:
                raise
        else:
            return


@first_error_wins()
def _serialize(profile: str, sync_filter: Filter | None, on_begin: Callable[[], None] | None) -> None:
    instance = InstanceIDModel.get_current_instance_and_increment_counter()
    saver = Saver(instance.id, instance.counter)
    with isolated_transaction(sync_filter, on_begin):
        # On SQLite the first thing to do is to write: who has read before may not be let to write any more
        sql.raise_database_counters(sync_filter or [""], saver)
        for queryset in AppModelSource(profile, sync_filter, partition_order=None).querysets():
            _store_rows(queryset, saver)
        _store_deletions(profile, saver)
        _store_hard_deletions(profile)


def _store_rows(queryset: QuerySet[Any], saver: Saver) -> None:
    sized = RowSource(queryset) | Sized()
    rows = sized | WeighedBuffer(CHUNK_ROWS, CHUNK_BYTES) | StoreLookup() | StoreUpdate()
    if rows.into(StoreSink(saver)):
        sql.count(queryset.order_by().values("id"), saver)
        mark_as_clean(queryset)


def _store_deletions(profile: str, saver: Saver) -> None:
    deleted = DeletedModels.objects.filter(profile=profile)
    if not deleted.exists():
        return
    records = Store.objects.filter(id__in=deleted.values("id"))
    records.update(
        dirty_bit=False,
        deleted=True,
        last_saved_instance=saver.instance_id,
        last_saved_counter=saver.counter,
    )
    sql.count(records.values("id"), saver)
    _forget(deleted)


def _store_hard_deletions(profile: str) -> None:
    hard_deleted = HardDeletedModels.objects.filter(profile=profile)
    if not hard_deleted.exists():
        return
    records = Store.objects.filter(id__in=hard_deleted.values("id"))
    records.update(hard_deleted=True, serialized="{}", conflicting_serialized_data="")
    _forget(hard_deleted)


def _forget(notes: QuerySet[Any]) -> None:
    """Delete rows in one statement. Django's own way reads them, for Morango listens to all deletions."""
    notes._raw_delete(connection.alias)  # type: ignore[attr-defined]  # Django's own
