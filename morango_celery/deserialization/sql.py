"""Hand-written SQL of a batch about Store rows, and about rows that are found by their ids."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from functools import lru_cache
from typing import Any

from django.db import connection
from django.db.models import ForeignKey, Model
from morango.models.core import Store
from morango.models.fields.uuids import UUIDField

from morango_celery.db.dialect import dialect
from morango_celery.deserialization.identifiers import (
    column_of,
    table_name,
)
from morango_celery.deserialization.quarantine import QUARANTINED
from morango_celery.deserialization.statements import (
    MAX_STATEMENTS,
)

_NEEDED = {
    "id",
    "profile",
    "model_name",
    "serialized",
    "deleted",
    "hard_deleted",
    "partition",
    "source_id",
    "_self_ref_fk",
}
CLAIMED_COLUMNS = tuple(f.attname for f in Store._meta.concrete_fields if f.attname in _NEEDED)
"""Columns in the model's own order, as ``Store.from_db`` takes them."""

_CLEAN = "dirty_bit = %s, deserialization_error = NULL, deserialization_exception = NULL"

_BY_ID_IN_ORDER = (
    f"rowid IN (SELECT rowid FROM {Store._meta.db_table} WHERE id IN (SELECT value FROM json_each(%s)))"
)
"""Store rows by a list of ids on SQLite, page by page: in the order of random ids nearly each row is on
another page than the one before it."""


def claim(profile: str, store_ids: Sequence[str]) -> list[tuple[Any, ...]]:
    """Take the still dirty records among `store_ids` that aren't quarantined: lock and read them.

    PostgreSQL marks them as clean in the same statement: writing a wide row twice costs more than everything
    else that a batch does, and most records don't fail. SQLite has one writer, which may
    wait for `mark_processed`.

    :returns: `CLAIMED_COLUMNS` of each record, in no particular order
    """
    table = table_name(Store)
    with connection.cursor() as cursor:
        if dialect().returns_updated_rows:
            columns = [dialect().hex_digits(c) if c == "id" else c for c in CLAIMED_COLUMNS]
            cursor.execute(
                f"UPDATE {table} SET {_CLEAN} WHERE id = ANY(%s::uuid[]) AND dirty_bit AND profile = %s"
                " AND deserialization_exception IS DISTINCT FROM %s"
                f" RETURNING {', '.join(columns)}",
                [False, dialect().ids(store_ids), profile, QUARANTINED],
            )
            return list(cursor.fetchall())
        # The plus signs keep SQLite from reading all dirty records by Morango's index
        cursor.execute(
            f"SELECT {', '.join(CLAIMED_COLUMNS)} FROM {table}"
            f" WHERE {_BY_ID_IN_ORDER} AND +dirty_bit AND +profile = %s"
            " AND deserialization_exception IS NOT %s",
            [json.dumps(list(store_ids)), profile, QUARANTINED],
        )
        return list(cursor.fetchall())


def mark_processed(claimed: Iterable[str], returned: Sequence[tuple[str, str | None, str | None]]) -> None:
    """Leave claimed records clean, but for the returned ones: these are dirty, with their error.

    :param claimed: the ids of all, returned ones included
    :param returned: id, error text and exception path of each
    """
    table = table_name(Store)
    with connection.cursor() as cursor:
        if not dialect().returns_updated_rows:
            done = set(claimed).difference(store_id for store_id, *_ in returned)
            cursor.execute(
                f"UPDATE {table} SET {_CLEAN} WHERE {_BY_ID_IN_ORDER}", [False, json.dumps(list(done))]
            )
        if not returned:
            return
        if dialect().has_arrays:
            ids, errors, exceptions = (list(column) for column in zip(*returned, strict=True))
            cursor.execute(
                f"UPDATE {table} SET dirty_bit = true, deserialization_error = failed.error,"
                " deserialization_exception = failed.exception"
                " FROM unnest(%s::uuid[], %s::text[], %s::text[]) AS failed (id, error, exception)"
                f" WHERE {table}.id = failed.id",
                [dialect().ids(ids), errors, exceptions],
            )
        else:
            said = {store_id: (error, exception) for store_id, error, exception in returned}
            cursor.execute(f"SELECT id, rowid FROM {table} WHERE {_BY_ID_IN_ORDER}", [json.dumps(list(said))])
            cursor.executemany(
                f"UPDATE {table} SET deserialization_error = %s, deserialization_exception = %s"
                " WHERE rowid = %s",
                [(*said[store_id], rowid) for store_id, rowid in cursor.fetchall()],
            )


def select_by_ids(
    model: type[Model], key: str, names: Sequence[str], ids: Iterable[str]
) -> list[tuple[Any, ...]]:
    """Return rows by a field of ids: the id as 32 hex digits, then other fields, in no particular order.

    As the ORM would, without turning every id into a `UUID` and back.

    :param key: the attname of the field of ids
    :param names: those of the others
    """
    table = table_name(model)
    wanted, *others = (column_of(model, name) for name in (key, *names))
    found = ", ".join(others)
    with connection.cursor() as cursor:
        cursor.execute(
            f"SELECT {dialect().hex_digits(wanted)}, {found} FROM {table} WHERE {wanted} {dialect().id_list}",
            [dialect().ids(ids)],
        )
        return list(cursor.fetchall())


_NO_STATE = ", ".join(f"CAST(NULL AS {kind})" for kind in ("boolean",) * 3 + ("text",) * 3)
_STATE = "deleted, hard_deleted, dirty_bit, partition, model_name, deserialization_error"


def select_references(
    models: tuple[type[Model], ...], ids: Sequence[Iterable[str]], store_ids: Iterable[str]
) -> list[tuple[Any, ...]]:
    """Return rows of syncable models and of the Store by their ids, in one statement.

    :param models: each once
    :param ids: ids to look for, of each model
    :returns: in no particular order, of an app row: the position of its model, its id, and whether it
        carries a local edit; of a Store row: None, its id, None, and the fields of a `StoreState`
    """
    each = [*ids, store_ids]
    parameters = [dialect().ids(wanted) for wanted in each]
    with connection.cursor() as cursor:
        cursor.execute(_references_text(models), parameters)
        return list(cursor.fetchall())


@lru_cache(maxsize=MAX_STATEMENTS)
def _references_text(models: tuple[type[Model], ...]) -> str:
    sought, among = dialect().hex_digits, dialect().id_list
    texts = []
    for place, model in enumerate(models):
        key, bit = column_of(model, "id"), column_of(model, "_morango_dirty_bit")
        found = f"{place}, {sought(key)}, {bit}, {_NO_STATE}"
        texts.append(f"SELECT {found} FROM {table_name(model)} WHERE {key} {among}")
    store = f"SELECT NULL, {sought('id')}, NULL, {_STATE} FROM {table_name(Store)} WHERE id {among}"
    return " UNION ALL ".join([*texts, store])


def select_columns(model: type[Model], names: Sequence[str], ids: Iterable[str]) -> list[tuple[Any, ...]]:
    """Return rows by their ids: the id as 32 hex digits, then other columns. Rows that aren't there are left
    out.

    :param names: attnames of fields of ids, also as 32 hex digits, or of texts
    """
    with connection.cursor() as cursor:
        cursor.execute(_columns_text(model, tuple(names)), [dialect().ids(ids)])
        return list(cursor.fetchall())


@lru_cache(maxsize=MAX_STATEMENTS)
def _columns_text(model: type[Model], names: tuple[str, ...]) -> str:
    found = ", ".join(_readable(model, name) for name in ("id", *names))
    return f"SELECT {found} FROM {table_name(model)} WHERE {column_of(model, 'id')} {dialect().id_list}"


def select_keys(
    model: type[Model], names: tuple[str, ...], wanted: Sequence[tuple[str, ...]]
) -> list[tuple[Any, ...]]:
    """Return rows by the values of some columns: the id as 32 hex digits, then these values.

    :param names: attnames of fields of ids
    :param wanted: ids of 32 hex digits, as many as names in each
    """
    columns = list(zip(*wanted, strict=True))
    parameters = [dialect().ids(ids) for ids in columns] if dialect().has_arrays else [json.dumps(wanted)]
    with connection.cursor() as cursor:
        cursor.execute(_keys_text(model, names), parameters)
        return list(cursor.fetchall())


@lru_cache(maxsize=MAX_STATEMENTS)
def _keys_text(model: type[Model], names: tuple[str, ...]) -> str:
    found = ", ".join(_readable(model, name, "there.") for name in ("id", *names))
    columns = [f"there.{column_of(model, name)}" for name in names]
    if dialect().has_arrays:
        sought = [f"wanted.key{place}" for place in range(len(names))]
        arrays = ", ".join(["%s::uuid[]"] * len(names))
        keys = ", ".join(f"key{place}" for place in range(len(names)))
        source = f"unnest({arrays}) AS wanted ({keys}) JOIN"
    else:
        sought = [f"json_extract(wanted.value, '$[{place}]')" for place in range(len(names))]
        source = "json_each(%s) AS wanted CROSS JOIN"  # in this order, so that it finds rows by an index
    same = " AND ".join(f"{column} = {value}" for column, value in zip(columns, sought, strict=True))
    return f"SELECT {found} FROM {source} {table_name(model)} AS there ON {same}"


def _readable(model: type[Model], name: str, table: str = "") -> str:
    """Return the expression for a column of ids, as 32 hex digits, or of texts."""
    field = model._meta.get_field(name)
    held = field.target_field if isinstance(field, ForeignKey) else field
    column = f"{table}{column_of(model, name)}"
    return dialect().hex_digits(column) if type(held) is UUIDField else column
