"""Transactions that the database ended itself, and transactions that only read."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from django.db import connection, transaction

from morango_celery.db.dialect import dialect


@contextmanager
def first_error_wins() -> Iterator[None]:
    """Raise the error by which SQLite ended the transaction inside, even if it was caught there.

    A full disk, an I/O error, an interrupt or a lack of memory makes SQLite roll back the whole transaction.
    Django doesn't notice: every later statement would be committed alone. So it is told, and refuses them.
    Code of a model may have taken the error for its own, and then it is raised here all the same.

    Put it around ``transaction.atomic()``, not inside. On PostgreSQL it does nothing.

    Cost: no statement; a function call for each, on SQLite.
    """
    if not dialect().ends_transactions_itself:
        yield
        return
    first: list[Exception] = []

    def execute(call: Callable[..., Any], sql: Any, parameters: Any, many: bool, context: Any) -> Any:
        try:
            return call(sql, parameters, many, context)
        except Exception as error:  # noted, and raised again
            if not first and connection.in_atomic_block and not _is_open():
                first.append(error)
                connection.needs_rollback = True
            raise

    with connection.execute_wrapper(execute):
        try:
            yield
        except Exception:
            if not first:
                raise
    if first:
        raise first[0]


@contextmanager
def read_only(*, even_with_one_writer: bool = False) -> Iterator[None]:
    """Read in one view of the data, in which PostgreSQL refuses to write. Nobody waits for it.

    SQLite's queries get no transaction: with a rollback journal, a writer would have to wait for its end.
    Inside an open transaction, nothing is changed about that.

    :param even_with_one_writer: True for a transaction on SQLite, too
    Cost: one statement on PostgreSQL.
    """
    if connection.in_atomic_block or (dialect().has_one_writer and not even_with_one_writer):
        yield
        return
    with transaction.atomic():
        if not dialect().has_one_writer:
            with connection.cursor() as cursor:
                cursor.execute("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ, READ ONLY")
        yield


def _is_open() -> bool:
    """Return True while SQLite itself knows of a transaction."""
    return connection.connection is not None and bool(connection.connection.in_transaction)
