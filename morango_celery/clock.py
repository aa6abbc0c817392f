"""The database's clock, by which machines that share a ledger compare times: their own may be wrong."""

from __future__ import annotations

import datetime
from typing import Any

from django.db import DEFAULT_DB_ALIAS, connections
from django.db.models import DateTimeField, ExpressionWrapper, Value
from django.db.models.functions import Now
from django.utils import timezone


def now(later_seconds: float = 0.0, using: str = DEFAULT_DB_ALIAS) -> Any:
    """Return the time of the statement that it becomes part of, as an expression.

    SQLite's clock is this machine's, which is the only one then, and SQLite knows whole seconds only.

    :param later_seconds: to add; negative for a time in the past
    :param using: alias of the database that the statement goes to
    """
    later = datetime.timedelta(seconds=later_seconds)
    if connections[using].vendor != "postgresql":
        return Value(timezone.now() + later, output_field=DateTimeField())
    return ExpressionWrapper(Now() + later, output_field=DateTimeField()) if later else Now()


def now_in_sql(later_seconds: float = 0.0, using: str = DEFAULT_DB_ALIAS) -> tuple[str, Any]:
    """Return the same for a statement that is written by hand: SQL with one placeholder, and its value."""
    connection = connections[using]
    if connection.vendor != "postgresql":
        later = timezone.now() + datetime.timedelta(seconds=later_seconds)
        return "%s", connection.ops.adapt_datetimefield_value(later)
    return "(STATEMENT_TIMESTAMP() + %s * INTERVAL '1 second')", later_seconds
