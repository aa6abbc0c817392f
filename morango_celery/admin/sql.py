"""The admin's hand-written SQL: how long a page may let the database work."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from django.db import OperationalError, connection, transaction

from morango_celery.db.dialect import dialect
from morango_celery.db.errors import is_cancelled
from morango_celery.errors import QueryTimeoutError


@contextmanager
def time_limit(seconds: float) -> Iterator[None]:
    """Have PostgreSQL give up each statement inside that takes longer; SQLite knows no such limit.

    A shorter `statement_timeout` that is configured stays.

    :raises QueryTimeoutError: what was done inside is undone
    Cost: a transaction or savepoint, and three statements.
    """
    try:
        with transaction.atomic():
            before = _limit_statements(round(seconds * 1000)) if dialect().has_timeouts else None
            yield
            if before is not None:
                _set_timeout(before)  # who called may have more to do in the same transaction
    except OperationalError as error:
        if is_cancelled(error):
            raise QueryTimeoutError from error
        raise


def _limit_statements(milliseconds: int) -> int:
    """Set the limit of this connection.

    :returns: the limit so far, in milliseconds; 0 for none
    """
    with connection.cursor() as cursor:
        cursor.execute("SELECT setting FROM pg_settings WHERE name = 'statement_timeout'")
        (setting,) = cursor.fetchone()
    before = int(setting)
    _set_timeout(min(before or milliseconds, milliseconds))
    return before


def _set_timeout(milliseconds: int) -> None:
    with connection.cursor() as cursor:
        cursor.execute("SELECT set_config('statement_timeout', %s, true)", [str(milliseconds)])
