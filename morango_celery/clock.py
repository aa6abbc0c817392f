"""The database's clock, by which machines that share a ledger compare times: their own may be wrong."""

from __future__ import annotations

import datetime
from typing import Any

from django.db import connection
from django.db.models import DateTimeField, ExpressionWrapper, Value
from django.db.models.functions import Now
from django.utils import timezone


def now(later_seconds: float = 0.0) -> Any:
    """Return the time of the statement that it becomes part of, as an expression.

    SQLite's clock is this machine's, which is the only one then, and SQLite knows whole seconds only.

    :param later_seconds: to add; negative for a time in the past
    """
    later = datetime.timedelta(seconds=later_seconds)
    if connection.vendor != "postgresql":
        return Value(timezone.now() + later, output_field=DateTimeField())
    return ExpressionWrapper(Now() + later, output_field=DateTimeField()) if later else Now()
