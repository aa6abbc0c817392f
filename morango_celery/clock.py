"""The database's clock: machines that share a ledger compare times by it, since their own may be wrong."""

from __future__ import annotations

import datetime
from typing import Any

from django.db import DEFAULT_DB_ALIAS, connections
from django.db.models import DateTimeField, Value
from django.db.models.functions import Now
from django.utils import timezone

from morango_celery.db.dialect import dialect


def now(later_seconds: float = 0.0, using: str = DEFAULT_DB_ALIAS) -> Any:
    """Return an expression for the time of the statement that it becomes part of.

    On SQLite it is this machine's time. No other machine uses the file, and SQLite counts whole seconds.

    :param later_seconds: to add; negative for a time in the past
    :param using: alias of the database that the statement goes to
    """
    later = datetime.timedelta(seconds=later_seconds)
    if not dialect(using).tells_time:
        return Value(timezone.now() + later, output_field=DateTimeField())
    return _Later(later_seconds) if later_seconds else Now()


class _Later(Now):
    """The time of a statement and some seconds, on PostgreSQL."""

    def __init__(self, later_seconds: float) -> None:
        super().__init__(output_field=DateTimeField())
        self.later_seconds = later_seconds

    def as_postgresql(self, compiler: Any, connection: Any, **context: Any) -> tuple[str, list[Any]]:
        return "(STATEMENT_TIMESTAMP() + %s)", [datetime.timedelta(seconds=self.later_seconds)]


def seconds_from_now(value: Any) -> float | None:
    """Return the seconds by which an expression of `now` is later than its statement; None for a value."""
    if not hasattr(value, "resolve_expression"):
        return None
    return getattr(value, "later_seconds", 0.0)


def now_in_sql(later_seconds: float = 0.0, using: str = DEFAULT_DB_ALIAS) -> tuple[str, Any]:
    """Return `now` for a statement that is written by hand, as SQL with one placeholder and as its value."""
    connection = connections[using]
    if not dialect(using).tells_time:
        later = timezone.now() + datetime.timedelta(seconds=later_seconds)
        return "%s", connection.ops.adapt_datetimefield_value(later)
    return "(STATEMENT_TIMESTAMP() + %s * INTERVAL '1 second')", later_seconds
