"""Texts of the statements that write rows, made once per model and process: only their parameters change."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from typing import Any, TypeAlias

from django.db import connection
from django.db.models import Field, Model
from morango.models.core import Store

from morango_celery.db.dialect import dialect
from morango_celery.deserialization.identifiers import (
    MAX_NAME_BYTES,
    column_name,
    kept_name,
    primary_key,
    quoted,
    table_name,
)

Fields: TypeAlias = "tuple[Field[Any, Any], ...]"

MAX_STATEMENTS = 1_000
"""Most statements of each kind that are kept. There are as many as models, unless somebody makes models on
the go."""

_JSON_TYPES = {"json", "jsonb"}
_TYPES_WITHOUT_EQUALITY = {"json", "xml", "point", "polygon"}


@dataclass(frozen=True)
class Insertion:
    """Statement that inserts rows of one model, and the form of its parameter on PostgreSQL."""

    text: str
    keys: tuple[str, ...]
    """Names of the columns in the JSON that becomes rows."""
    documents: tuple[str, ...]
    """Columns among them that have JSON as their value."""


@lru_cache(maxsize=MAX_STATEMENTS)
def insertion(model: type[Model], fields: Fields, rule: str) -> Insertion:
    """Return the statement that inserts rows.

    :param fields: the concrete fields written
    :param rule: its end, about rows that exist; the table is called ``there`` in it
    """
    table, names = table_name(model), ", ".join(map(column_name, fields))
    if not dialect().has_arrays:
        marks = ", ".join(["%s"] * len(fields))
        return Insertion(f"INSERT INTO {table} AS there ({names}) VALUES ({marks}) {rule}", (), ())
    values = (_without_minus_zero(f"synced.{column_name(field)}", field) for field in fields)
    return Insertion(
        f"INSERT INTO {table} AS there ({names}) SELECT {', '.join(values)}"
        f" FROM json_populate_recordset(NULL::{table}, %s) AS synced {rule}",
        tuple(map(kept_name, fields)),
        tuple(kept_name(field) for field in fields if field.db_type(connection) in _JSON_TYPES),
    )


@lru_cache(maxsize=MAX_STATEMENTS)
def upsertion(model: type[Model], fields: Fields) -> Insertion:
    """Return the statement that inserts rows, or overwrites those that exist and carry no local edit."""
    return insertion(model, fields, _on_conflict(model, fields))


@lru_cache(maxsize=MAX_STATEMENTS)
def upsert_of_stored(model: type[Model], fields: Fields, store_columns: tuple[tuple[str, str], ...]) -> str:
    """Return the statement that upserts rows from the JSON of Store rows. On PostgreSQL only.

    :param store_columns: pairs of a field's name and of the Store row's column that its value comes from
    """
    source = {field.attname: _in_json(field) for field in fields} | {"_morango_dirty_bit": "false"}
    source |= {name: f"stored.{column}" for name, column in store_columns}
    keys = [field for field in fields if source[field.attname] == _synced(field.attname)]
    definitions = ", ".join(f"{quoted(field.attname)} {field.db_type(connection)}" for field in keys)
    return (
        f"INSERT INTO {table_name(model)} AS there ({', '.join(map(column_name, fields))})"
        f" SELECT {', '.join(_without_minus_zero(source[field.attname], field) for field in fields)}"
        f" FROM {table_name(Store)} AS stored,"
        f" json_to_record(stored.serialized::json) AS synced ({definitions})"
        f" WHERE stored.id = ANY(%s::uuid[]) {_on_conflict(model, fields)}"
    )


def _in_json(field: Field[Any, Any]) -> str:
    """Return the SQL for a field's value in the JSON of a Store row. Its keys are attnames.

    PostgreSQL would cut off a longer name. Such a key is looked for in the text.
    """
    if len(field.attname.encode()) <= MAX_NAME_BYTES:
        return _synced(field.attname)
    return f"(stored.serialized::json ->> '{field.attname}')::{field.db_type(connection)}"


def _synced(name: str) -> str:
    return f"synced.{quoted(name)}"


def _without_minus_zero(value: str, field: Field[Any, Any]) -> str:
    # In SQL, and so for every other writer, there is no minus zero
    return f"{value} + 0" if field.db_type(connection) == "double precision" else value


def _on_conflict(model: type[Model], fields: Fields) -> str:
    """Return the rule about rows that exist, for a table that is called there."""
    key = primary_key(model)
    columns = [column_name(field) for field in fields if field != key]
    updates = ", ".join(f"{column} = excluded.{column}" for column in columns)
    return f"ON CONFLICT ({column_name(key)}) DO UPDATE SET {updates} WHERE {_overwritable(fields)}"


def _overwritable(fields: Fields) -> str:
    """Return the condition under which a row may be overwritten.

    A dirty row that equals the synced one holds no edit that could be lost: models' own code creates
    such rows while other records are saved.
    """
    (dirty_bit,) = (field for field in fields if field.attname == "_morango_dirty_bit")
    clean = f"NOT there.{column_name(dirty_bit)}"
    if any(field.db_type(connection) in _TYPES_WITHOUT_EQUALITY for field in fields):
        return clean
    columns = [column_name(field) for field in fields if field != dirty_bit]
    ours = ", ".join(f"there.{column}" for column in columns)
    synced = ", ".join(f"excluded.{column}" for column in columns)
    return f"({clean} OR ({ours}) {dialect().is_same} ({synced}))"
