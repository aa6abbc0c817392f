"""The whole database as plain values, to be compared with another one's."""

from __future__ import annotations

import datetime
import decimal
import uuid
from typing import Any

from django.db import connection

Value = str | int | float | bool | None
Tables = dict[str, dict[str, dict[str, Value]]]
"""Table name -> primary key -> column -> value."""

OUR_OWN = ("morango_celery_", "django_migrations")
"""Prefixes of tables that only one side writes to."""


def dump() -> Tables:
    """Read every column of every table of the default database, past models and managers."""
    with connection.cursor() as cursor:
        names = connection.introspection.table_names(cursor)
        return {name: _table(cursor, name) for name in sorted(names) if not name.startswith(OUR_OWN)}


def _table(cursor: Any, name: str) -> dict[str, dict[str, Value]]:
    key = connection.introspection.get_primary_key_column(cursor, name)
    cursor.execute(f"SELECT * FROM {connection.ops.quote_name(name)}")
    columns = [description[0] for description in cursor.description]
    position = columns.index(key)
    return {
        str(_plain(row[position])): {
            column: _plain(value) for column, value in zip(columns, row, strict=True)
        }
        for row in cursor
    }


def _plain(value: object) -> Value:
    match value:
        case float() if value != value:
            return "NaN"  # which differs even from itself
        case None | str() | int() | float():
            return value
        case uuid.UUID():
            return value.hex
        case datetime.datetime() | datetime.date() | datetime.time():
            return value.isoformat()
        case decimal.Decimal():
            return str(value)
        case bytes() | memoryview():
            return bytes(value).hex()
    raise TypeError(f"don't know how to compare a {type(value).__name__}")
