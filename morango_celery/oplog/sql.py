"""Hand-written SQL of recorder and ingestion for PostgreSQL and SQLite, beyond Django 3.2's queries."""

from __future__ import annotations

import json
from collections.abc import Collection, Sequence
from typing import Any

from django.db import connection
from django.db.models import AutoField, Field, Model

from morango_celery.db.dialect import dialect
from morango_celery.deserialization.app_rows import insert
from morango_celery.deserialization.identifiers import (
    as_sent,
    as_written,
    column_name,
    kept_name,
    table_name,
)
from morango_celery.oplog.meta import key_field
from morango_celery.oplog.models import OutboxChange


def upsert(model: type[Model], fields: Sequence[Field[Any, Any]], rows: Sequence[Sequence[Any]]) -> None:
    """Insert rows of one model's own table, in their order, or overwrite those that exist.

    :param fields: the concrete fields of that table, all of them
    :param rows: their values as `Field.get_db_prep_save` makes them; no two with the same key
    :raises DatabaseError: a constraint, a type or the connection; nothing is known to be written
    """
    key = key_field(model)
    others = [column_name(field) for field in fields if field != key]
    updates = ", ".join(f"{column} = excluded.{column}" for column in others)
    insert(
        model,
        fields,
        rows,
        f"ON CONFLICT ({column_name(key)}) DO {f'UPDATE SET {updates}' if updates else 'NOTHING'}",
    )


def missing(field: Field[Any, Any], values: Collection[Any]) -> set[Any]:
    """Return the values, as the driver takes them, that no row has in this field. For SQLite only."""
    column = column_name(field)
    with connection.cursor() as cursor:
        cursor.execute(
            f"SELECT {column} FROM {table_name(field.model)}"
            f" WHERE {column} IN (SELECT value FROM json_each(%s))",
            [json.dumps(list(values))],
        )
        return set(values).difference(found for (found,) in cursor.fetchall())


def first_in_outbox(most: int, most_bytes: int) -> list[tuple[int, str]]:
    """Return the ids and texts of the oldest changes: at least one, and at most `most`.

    Their texts begin within `most_bytes`.
    """
    table = table_name(OutboxChange)
    with connection.cursor() as cursor:
        cursor.execute(
            f"SELECT id, text FROM {table} WHERE id <= (SELECT max(id) FROM"
            " (SELECT id, sum(size_bytes) OVER (ORDER BY id) - size_bytes AS before FROM"
            f" (SELECT id, size_bytes FROM {table} ORDER BY id LIMIT %s) AS first) AS counted"
            " WHERE before < %s) ORDER BY id",
            [most, most_bytes],
        )
        return list(cursor.fetchall())


def advance_sequences(models: Sequence[type[Model]]) -> None:
    """Let PostgreSQL number new rows of these models above those that brought their numbers along.

    Sequences never go back: open transactions may have been given higher numbers.
    """
    if not dialect().has_sequences:
        return
    with connection.cursor() as cursor:
        for model in models:
            key = key_field(model)
            if not isinstance(key, AutoField):  # its metaclass counts the big and the small ones in
                continue
            table = table_name(model)
            cursor.execute("SELECT pg_get_serial_sequence(%s, %s)", [as_sent(table), kept_name(key)])
            (sequence,) = cursor.fetchone()
            if sequence is not None:
                cursor.execute(
                    f"SELECT setval(%s, top) FROM {as_written(sequence)},"
                    f" (SELECT max({column_name(key)}) AS top FROM {table}) AS rows"
                    " WHERE top > last_value OR (top = last_value AND NOT is_called)",
                    [sequence],
                )
