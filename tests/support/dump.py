"""The whole database as plain values, to be compared with another one's."""

from __future__ import annotations

import datetime
import decimal
import uuid
from functools import cache
from typing import Any

from django.apps import apps
from django.db import connection

from tests.support import tables

Value = str | int | float | bool | None
Tables = dict[str, dict[str, dict[str, Value]]]
"""Table name -> primary key (or the KEYS of the table) -> column -> value."""

OUR_OWN = ("morango_celery_", "django_migrations")
"""Prefixes of tables that only one implementation writes to."""

KEYS = {
    "morango_recordmaxcounter": ("store_model_id", "instance_id"),
    "morango_databasemaxcounter": ("instance_id", "partition"),
}
"""Columns that identify the rows of a table whose primary key is only a number of insertions."""


def dump() -> Tables:
    """Read every column of every table of the default database, past models and managers."""
    keys = _primary_keys(connection.vendor)
    filled = tables.filled(keys)
    with connection.cursor() as cursor:
        return {name: _table(cursor, name, key) if name in filled else {} for name, key in keys.items()}


@cache
def _primary_keys(vendor: str) -> dict[str, str | None]:
    """Return the primary key of each table. They are cached, for querying them takes longer than reading a
    small database."""
    with connection.cursor() as cursor:
        names = sorted(connection.introspection.table_names(cursor))
        keys = {
            name: connection.introspection.get_primary_key_column(cursor, name)
            for name in names
            if not name.startswith(OUR_OWN)
        }
    if vendor == "postgresql":  # which lists no tables of schemas that it isn't told to look through
        for model in apps.get_models():
            if '"."' in model._meta.db_table and model._meta.pk is not None:
                keys[model._meta.db_table] = model._meta.pk.column
    return keys


def _table(cursor: Any, name: str, primary_key: str | None) -> dict[str, dict[str, Value]]:
    cursor.execute(f"SELECT * FROM {connection.ops.quote_name(name)}")
    columns = [description[0] for description in cursor.description]
    keys = KEYS.get(name, (primary_key,))
    table: dict[str, dict[str, Value]] = {}
    for values in cursor:
        row = {column: _plain(value) for column, value in zip(columns, values, strict=True)}
        key = " ".join(str(row[column]) for column in keys)
        if name in KEYS:
            del row[primary_key]
        table[key] = row
    return table


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
        case decimal.Decimal() | datetime.timedelta():
            return str(value)
        case bytes() | memoryview():
            return bytes(value).hex()
    raise TypeError(f"don't know how to compare a {type(value).__name__}")
