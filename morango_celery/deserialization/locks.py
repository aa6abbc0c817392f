"""Locks of a batch's transaction, beside those of its rows."""

from __future__ import annotations

from collections.abc import Sequence

from django.db import connection, transaction
from morango.models.core import Store

from morango_celery.db.dialect import dialect
from morango_celery.errors import ExclusiveModelsTakenError

_EXCLUSIVE_KEYS = (0x6D64, 1)
"""Keys of an advisory lock; Morango's have 1 and 2 for the first."""


def take_write_lock() -> None:
    """Become SQLite's writer before reading: a reader can't become one once another has."""
    if dialect().has_one_writer:
        with connection.cursor() as cursor:
            cursor.execute(f"UPDATE {Store._meta.db_table} SET dirty_bit = dirty_bit WHERE 0")


def lock_exclusively(
    profile: str, store_ids: Sequence[str], model_names: Sequence[str], *, waits: bool
) -> bool:
    """Take the lock for exclusive models, if any of `store_ids` is a record of one of them.

    No other transaction that asks for the lock writes such records until this one ends. SQLite has one
    writer, and needs no lock.

    :param model_names: names of the exclusive models; nothing is asked if there are none
    :param waits: whether to wait for another transaction that has the lock
    :returns: True if this one has the lock now
    :raises ExclusiveModelsTakenError: another one has it; only if this doesn't wait
    """
    if not model_names or not dialect().has_advisory_locks:
        return False
    lock = "pg_advisory_xact_lock(%s, %s) IS NOT NULL" if waits else "pg_try_advisory_xact_lock(%s, %s)"
    with connection.cursor() as cursor:
        cursor.execute(
            f"SELECT {lock} WHERE EXISTS (SELECT 1 FROM {Store._meta.db_table}"
            " WHERE id = ANY(%s::uuid[]) AND profile = %s AND model_name = ANY(%s))",
            [*_EXCLUSIVE_KEYS, dialect().ids(store_ids), profile, list(model_names)],
        )
        found = cursor.fetchall()
    if found == [(False,)]:
        raise ExclusiveModelsTakenError
    return bool(found)


def is_locked_exclusively() -> bool:
    """Return True if another transaction has the lock of `lock_exclusively`. Nobody waits for the
    question."""
    if not dialect().has_advisory_locks:
        return False
    with transaction.atomic(), connection.cursor() as cursor:
        cursor.execute("SELECT pg_try_advisory_xact_lock_shared(%s, %s)", _EXCLUSIVE_KEYS)
        return bool(cursor.fetchall() == [(False,)])


def commit_lazily() -> None:
    """Let this transaction's commit return before it is on disk: a lost batch is run again."""
    if not dialect().has_one_writer:
        with connection.cursor() as cursor:
            cursor.execute("SET LOCAL synchronous_commit = off")
