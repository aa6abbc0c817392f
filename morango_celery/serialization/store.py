"""Morango's serialization, in a stream: local edits of app rows become Store rows."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from django.db import IntegrityError, OperationalError, connection, transaction
from django.db.models import QuerySet
from morango.models.certificates import Filter
from morango.models.core import DeletedModels, HardDeletedModels, InstanceIDModel, Store

from morango_celery.db.dialect import dialect
from morango_celery.db.transactions import first_error_wins
from morango_celery.django_compat import delete_unread
from morango_celery.reading.sizes import CHUNK_BYTES
from morango_celery.serialization import sql
from morango_celery.serialization.dirty_bits import mark_as_clean
from morango_celery.serialization.edits import find_edits, note_unless_edited
from morango_celery.serialization.instance import identify, identify_once
from morango_celery.serialization.sink import StoreSink
from morango_celery.serialization.source import CHUNK_ROWS, AppModelSource, RowSource, has_own_code
from morango_celery.serialization.sql import Saver
from morango_celery.serialization.update import Sized, StoreLookup, StoreUpdate
from morango_celery.stream import WeighedBuffer
from morango_celery.upstream import (
    is_isolation_error,
    isolated_transaction,
    known_instance_id,
    refuse_open_transaction,
)

ATTEMPTS = 5


def serialize_into_store(
    profile: str,
    filter: Filter | None = None,  # noqa: A002  (Morango's name)
    *,
    on_begin: Callable[[], None] | None = None,
    unless_edited: Callable[[], None] | None = None,
) -> None:
    """Bring local edits into the Store: new and changed app rows, deletions, counters.

    Where nothing was edited, Morango changes counters alone, and a short transaction does
    (`_note_unless_edited`). Else it is one transaction, REPEATABLE READ on PostgreSQL, under Morango's
    exclusive lock of the filter's partitions. An app row that is edited meanwhile is stored as it was, and
    stays dirty.

    That lock may be waited for, and the transaction's view of the data is older than the wait. So one
    that had to wait for another may come upon rows that it can't see; the next attempt does.

    :param filter: None for the whole profile
    :param on_begin: called first in each transaction, before the lock is waited for
    :param unless_edited: called last in the short transaction, which holds the lock; never on SQLite. If that
        is undone, and tried again, `on_begin` is called again
    :raises MorangoDatabaseError: on PostgreSQL, inside an open transaction
    :raises OperationalError, InterfaceError: the database went away; or asks to try again, and keeps asking
    Cost: one statement if nothing was edited, and what `on_begin` takes. Else four more, four for each model
    with edits, and three for every 500 edited rows, or fewer of large ones. One for each row that holds a
    large value; one for each model with edits that has code of its own for serializing.
    Twice: safe; there is nothing left to do then, but a counter is raised.
    """
    for left in reversed(range(ATTEMPTS)):
        try:
            _serialize(profile, filter, on_begin, unless_edited)
        except (IntegrityError, OperationalError) as error:
            came_across_another = isinstance(error, IntegrityError) or is_isolation_error(error)
            if not came_across_another or not left or connection.in_atomic_block:
                raise
        else:
            return


@first_error_wins()
def _serialize(
    profile: str,
    sync_filter: Filter | None,
    on_begin: Callable[[], None] | None,
    unless_edited: Callable[[], None] | None,
) -> None:
    if dialect().returns_updated_rows:
        refuse_open_transaction()
        saver, is_edited = _note_unless_edited(profile, sync_filter, on_begin, unless_edited)
        if not is_edited:
            return
    else:
        identify_once()
        instance = InstanceIDModel.get_current_instance_and_increment_counter()
        saver = Saver(instance.id, instance.counter)
    with isolated_transaction(sync_filter, on_begin):
        # On SQLite the first thing to do is to write: who has read before may not be let to write any more
        sql.raise_database_counters(sync_filter or [""], saver)
        edits = find_edits(profile, sync_filter)
        source = AppModelSource(profile, sync_filter, partition_order=None)
        for model in source.models():
            is_stored = edits.are_in(model) and _store_rows(source.queryset(model), saver)
            if is_stored and has_own_code(model):
                edits = find_edits(profile, sync_filter)  # its code may have edited others, or deleted
        if edits.are_noted_in(DeletedModels):
            _store_deletions(profile, saver)
        if edits.are_noted_in(HardDeletedModels):
            _store_hard_deletions(profile)


def _note_unless_edited(
    profile: str,
    sync_filter: Filter | None,
    on_begin: Callable[[], None] | None,
    unless_edited: Callable[[], None] | None,
) -> tuple[Saver, bool]:
    """Note a new counter where nothing was edited, as Morango does; else raise the instance's counter, and
    no more.

    Morango raises the counter, takes a view of the data, waits for its lock, and notes the counter for the
    filter's prefixes. Here the lock comes first, and one statement does the rest.

    That needs no REPEATABLE READ: a statement has one view of the data. The view is no old one, for others
    who serialize under the filter, or dequeue, have to wait. An edit after the view was taken, even before
    the commit, is like an edit after Morango's: no row is touched here, so it stays dirty, and the next
    serialization takes it.

    Raising the counter under the lock leaves less room than Morango does for one serialization to overtake
    another, and note a higher counter before the lower one's records are in the Store.

    :returns: the saver, and whether anything was edited
    """
    instance_id = known_instance_id() or identify()
    while True:
        with transaction.atomic(savepoint=False):
            if on_begin is not None:
                on_begin()
            found = note_unless_edited(profile, sync_filter, instance_id)
            if found is not None and not found[1] and unless_edited is not None:
                unless_edited()
        if found is not None:
            return found
        instance_id = identify()  # another database than before, or another machine


def _store_rows(queryset: QuerySet[Any], saver: Saver) -> bool:
    """Store the edited rows of a query. Return True if there were any."""
    sized = RowSource(queryset).pipe(Sized())
    lists = sized.pipe(WeighedBuffer(CHUNK_ROWS, CHUNK_BYTES)).pipe(StoreLookup()).pipe(StoreUpdate())
    if not lists.end(StoreSink(saver)):
        return False
    sql.count(queryset.order_by().values("id"), saver)
    mark_as_clean(queryset)
    return True


def _store_deletions(profile: str, saver: Saver) -> None:
    deleted = DeletedModels.objects.filter(profile=profile)
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
    records = Store.objects.filter(id__in=hard_deleted.values("id"))
    records.update(hard_deleted=True, serialized="{}", conflicting_serialized_data="")
    _forget(hard_deleted)


def _forget(notes: QuerySet[Any]) -> None:
    """Delete rows in one statement. Django's own way reads them, for Morango listens to all deletions."""
    delete_unread(notes, connection.alias)
