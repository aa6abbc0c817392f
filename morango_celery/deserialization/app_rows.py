"""Writing of app rows by hand-written SQL, for PostgreSQL and SQLite.

On PostgreSQL rows travel as one JSON parameter, which the server turns into rows of the table's own types. So
the statement is the same for any number of rows, and its plan is cheap. On SQLite ``executemany`` of one
prepared statement is fastest.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from django.db import connection
from django.db.models import Field, Model

from morango_celery.db.dialect import dialect
from morango_celery.db.driver import input_text, json_text
from morango_celery.deserialization.identifiers import (
    column_name,
    column_of,
    kept_name,
    primary_key,
    table_name,
)
from morango_celery.deserialization.sql import select_by_ids
from morango_celery.deserialization.statements import Insertion, insertion, upsert_of_stored, upsertion


def upsert(model: type[Model], fields: Sequence[Field[Any, Any]], rows: Sequence[Sequence[Any]]) -> int:
    """Insert rows of one model, or overwrite those that exist and carry no local edit.

    :param fields: the concrete fields written, the primary key among them
    :param rows: their values as `Field.get_db_prep_save` makes them, at least one row
    :returns: how many rows were written. The others are `edited`
    :raises DatabaseError: a constraint, a type or the connection; nothing is known to be written
    """
    return _insert(upsertion(model, tuple(fields)), rows)


def reads_stored_rows() -> bool:
    """Return True if the database reads a record's JSON as Python does. SQLite doesn't: its numbers
    differ."""
    return dialect().reads_json


def upsert_stored(
    model: type[Model],
    fields: Sequence[Field[Any, Any]],
    store_columns: Mapping[str, str],
    store_ids: Sequence[str],
) -> int:
    """Upsert rows from the JSON of their Store rows, which the server has read already.

    :param fields: the concrete fields written
    :param store_columns: columns of the Store row, by the fields that take their values
    :param store_ids: records that have all other fields in their JSON, under their own names
    :raises DatabaseError: as `upsert`; or the server doesn't take the JSON
    """
    with connection.cursor() as cursor:
        cursor.execute(
            upsert_of_stored(model, tuple(fields), tuple(store_columns.items())), [dialect().ids(store_ids)]
        )
        written: int = cursor.rowcount
    return written


def edited(model: type[Model], ids: Iterable[str]) -> set[str]:
    """Return the ids of rows that carry a local edit: after an upsert, of those that it left alone."""
    looked_up = select_by_ids(model, primary_key(model).attname, ["_morango_dirty_bit"], ids)
    return {found for found, is_edited in looked_up if is_edited}


def mark_clean(model: type[Model], ids: Iterable[str]) -> None:
    """Take the dirty bit from app rows, which are about to be overwritten."""
    table, key, bit = (
        table_name(model),
        column_of(model, primary_key(model).attname),
        column_of(model, "_morango_dirty_bit"),
    )
    with connection.cursor() as cursor:
        cursor.execute(
            f"UPDATE {table} SET {bit} = false WHERE {key} {dialect().id_list}", [dialect().ids(ids)]
        )


def insert(
    model: type[Model], fields: Sequence[Field[Any, Any]], rows: Sequence[Sequence[Any]], rule: str
) -> int:
    """Insert rows of one model.

    :param fields: the concrete fields written
    :param rows: their values as `Field.get_db_prep_save` makes them
    :param rule: the end of the statement, about rows that exist; the table is called ``there`` in it
    :returns: the number of rows written
    """
    return _insert(insertion(model, tuple(fields), rule), rows)


def _insert(statement: Insertion, rows: Sequence[Sequence[Any]]) -> int:
    with connection.cursor() as cursor:
        if dialect().has_arrays:
            records = [dict(zip(statement.keys, row, strict=True)) for row in rows]
            for record in records if statement.documents else ():
                # A text in a JSON document is a JSON string, even if it reads like something else
                texts = {column: json_text(record[column]) for column in statement.documents}
                record.update({c: json.loads(text) for c, text in texts.items() if isinstance(text, str)})
            cursor.execute(statement.text, [json.dumps(records, default=input_text)])
        else:
            cursor.executemany(statement.text, rows)
        written: int = cursor.rowcount
    return written


def conflicting_positions(
    model: type[Model], fields: Sequence[Field[Any, Any]], rows: Sequence[Sequence[Any]]
) -> set[int]:
    """Return the positions of the `rows` with values that another row of the table has, as the database
    compares them.

    :param rows: the primary key and the values of `fields` of each
    """
    table = table_name(model)
    wanted = [primary_key(model), *fields]
    with connection.cursor() as cursor:
        if dialect().has_arrays:
            place, claims = "ordinality - 1", f"json_populate_recordset(NULL::{table}, %s) WITH ORDINALITY"
            values = [f"claim.{column_name(field)}" for field in wanted]
            keys = list(map(kept_name, wanted))
            claimed: list[Any] = [dict(zip(keys, row, strict=True)) for row in rows]
        else:
            place, claims = "key", "json_each(%s)"
            values = [f"json_extract(claim.value, '$[{index}]')" for index in range(len(wanted))]
            claimed = [list(row) for row in rows]
        own, *others = (
            (f"there.{column_name(field)}", value) for field, value in zip(wanted, values, strict=True)
        )
        condition = " AND ".join([" <> ".join(own), *map(" = ".join, others)])
        cursor.execute(
            f"SELECT {place} FROM {claims} AS claim"
            f" WHERE EXISTS (SELECT 1 FROM {table} AS there WHERE {condition})",
            [json.dumps(claimed, default=input_text)],
        )
        return {place for (place,) in cursor.fetchall()}
