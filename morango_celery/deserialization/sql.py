"""Hand-written SQL of a batch, for PostgreSQL and SQLite.

On PostgreSQL rows travel as one JSON parameter, which the server turns into rows of the table's own types. So
the statement is the same for any number of rows, and its plan is cheap. On SQLite ``executemany`` of one
prepared statement is fastest.
"""

from __future__ import annotations

import datetime
import decimal
import json
import uuid
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import lru_cache
from typing import Any

import psycopg2.extras
from django.db import DatabaseError, IntegrityError, InterfaceError, connection, transaction
from django.db.models import Field, Model
from morango.models.core import Store

from morango_celery.db.dialect import dialect
from morango_celery.deserialization.identifiers import (
    column_name,
    column_of,
    kept_name,
    quoted,
    table_name,
)
from morango_celery.deserialization.quarantine import QUARANTINED
from morango_celery.deserialization.statements import (
    MOST_TEXTS,
    Insertion,
    insertion,
    upsert_of_stored,
    upsertion,
)
from morango_celery.errors import ExclusiveModelsTakenError

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

INFRASTRUCTURE_ERRORS = (DatabaseError, InterfaceError, MemoryError)
"""Errors that may be raised while a model's code runs, and that say more about this machine than about the
record."""

_EXCLUSIVE_KEYS = (0x6D64, 1)
"""Keys of an advisory lock; Morango's have 1 and 2 for the first."""


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


def take_write_lock() -> None:
    """Become SQLite's writer before reading: a reader can't become one once another has."""
    if dialect().has_one_writer:
        with connection.cursor() as cursor:
            cursor.execute(f"UPDATE {Store._meta.db_table} SET dirty_bit = dirty_bit WHERE 0")


def lock_exclusively(
    profile: str, store_ids: Sequence[str], model_names: Sequence[str], *, waits: bool
) -> bool:
    """Take the lock for exclusive models, if any of `store_ids` is a record of one of them.

    No other transaction that asks for the lock writes such records until this one ends. SQLite has one
    writer, and needs no lock.

    :param model_names: names of the exclusive models; nothing is asked if there are none
    :param waits: whether to wait for another transaction that has the lock
    :returns: True if this one has the lock now
    :raises ExclusiveModelsTakenError: another one has it; only if this doesn't wait
    """
    if not model_names or not dialect().has_advisory_locks:
        return False
    lock = "pg_advisory_xact_lock(%s, %s) IS NOT NULL" if waits else "pg_try_advisory_xact_lock(%s, %s)"
    with connection.cursor() as cursor:
        cursor.execute(
            f"SELECT {lock} WHERE EXISTS (SELECT 1 FROM {Store._meta.db_table}"
            " WHERE id = ANY(%s::uuid[]) AND profile = %s AND model_name = ANY(%s))",
            [*_EXCLUSIVE_KEYS, dialect().ids(store_ids), profile, list(model_names)],
        )
        found = cursor.fetchall()
    if found == [(False,)]:
        raise ExclusiveModelsTakenError
    return bool(found)


def is_locked_exclusively() -> bool:
    """Return True if another transaction has the lock of `lock_exclusively`. Nobody waits for the
    question."""
    if not dialect().has_advisory_locks:
        return False
    with transaction.atomic(), connection.cursor() as cursor:
        cursor.execute("SELECT pg_try_advisory_xact_lock_shared(%s, %s)", _EXCLUSIVE_KEYS)
        return bool(cursor.fetchall() == [(False,)])


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


@lru_cache(maxsize=MOST_TEXTS)
def _references_text(models: tuple[type[Model], ...]) -> str:
    sought, among = dialect().hex_digits, dialect().id_list
    texts = []
    for place, model in enumerate(models):
        key, bit = column_of(model, "id"), column_of(model, "_morango_dirty_bit")
        found = f"{place}, {sought(key)}, {bit}, {_NO_STATE}"
        texts.append(f"SELECT {found} FROM {table_name(model)} WHERE {key} {among}")
    store = f"SELECT NULL, {sought('id')}, NULL, {_STATE} FROM {table_name(Store)} WHERE id {among}"
    return " UNION ALL ".join([*texts, store])


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


def _key(model: type[Model]) -> Field[Any, Any]:
    key = model._meta.pk
    assert key is not None  # it would be an abstract model
    return key


def edited(model: type[Model], ids: Iterable[str]) -> set[str]:
    """Return the ids of rows that carry a local edit: after an upsert, of those that it left alone."""
    looked_up = select_by_ids(model, _key(model).attname, ["_morango_dirty_bit"], ids)
    return {found for found, is_edited in looked_up if is_edited}


def mark_clean(model: type[Model], ids: Iterable[str]) -> None:
    """Take the dirty bit from app rows, which are about to be overwritten."""
    table, key, bit = (
        table_name(model),
        column_of(model, _key(model).attname),
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
                record.update(
                    {c: json.loads(record[c]) for c in statement.documents if isinstance(record[c], str)}
                )
            cursor.execute(statement.text, [json.dumps(records, default=_as_json)])
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
    wanted = [_key(model), *fields]
    with connection.cursor() as cursor:
        if dialect().has_arrays:
            place, claims = "ordinality - 1", f"json_populate_recordset(NULL::{table}, %s) WITH ORDINALITY"
            values = [f"claim.{column_name(field)}" for field in wanted]
            keys = list(map(kept_name, wanted))
            document: list[Any] = [dict(zip(keys, row, strict=True)) for row in rows]
        else:
            place, claims = "key", "json_each(%s)"
            values = [f"json_extract(claim.value, '$[{index}]')" for index in range(len(wanted))]
            document = [list(row) for row in rows]
        own, *others = (
            (f"there.{column_name(field)}", value) for field, value in zip(wanted, values, strict=True)
        )
        condition = " AND ".join([" <> ".join(own), *map(" = ".join, others)])
        cursor.execute(
            f"SELECT {place} FROM {claims} AS claim"
            f" WHERE EXISTS (SELECT 1 FROM {table} AS there WHERE {condition})",
            [json.dumps(document, default=_as_json)],
        )
        return {place for (place,) in cursor.fetchall()}


def _as_json(value: Any) -> Any:
    """Return a form that PostgreSQL's input functions read, of a value that JSON has no form of."""
    if isinstance(value, datetime.datetime | datetime.date | datetime.time):
        return value.isoformat()
    if isinstance(value, decimal.Decimal | uuid.UUID):
        return str(value)
    if isinstance(value, datetime.timedelta):
        return f"{value.days} days {value.seconds} seconds {value.microseconds} microseconds"
    if isinstance(value, psycopg2.extensions.Binary):
        value = value.adapted
    if isinstance(value, psycopg2.extras.Inet):
        return value.addr
    if isinstance(value, bytes | bytearray | memoryview):
        return "\\x" + bytes(value).hex()
    raise TypeError(f"A value of type {type(value).__name__} can't be written in bulk.")


def check_constraints() -> None:
    """Let deferred foreign keys fail now, where the culprit can be found, instead of at COMMIT.

    On SQLite there is no such statement that costs less than reading whole tables; foreign keys
    have been looked up by then, and `strict_check` is there for the rest.

    Cost: one round trip.

    :raises IntegrityError: a reference points nowhere
    """
    if dialect().checks_constraints_early:
        with connection.cursor() as cursor:
            cursor.execute("SET CONSTRAINTS ALL IMMEDIATE; SET CONSTRAINTS ALL DEFERRED")


def strict_check() -> Callable[[], None]:
    """Return a `check_constraints` that works on SQLite too, by reading every table with a foreign key.

    References that point nowhere already are nobody's fault, and not reported.
    """
    if dialect().checks_constraints_early:
        return check_constraints
    before = _dangling_references()

    def check() -> None:
        for table, row, target, key in sorted(_dangling_references() - before):
            column, value = _reference(table, row, key)
            raise IntegrityError(f"{table}.{column} refers to {value!r}, which {target} doesn't have.")

    return check


def _reference(table: str, row: int, key: int) -> tuple[str, Any]:
    """Column and value of a foreign key, by the numbers that SQLite's check has for row and key."""
    with connection.cursor() as cursor:
        keys = cursor.execute("SELECT * FROM pragma_foreign_key_list(%s)", [table]).fetchall()
        column = next(found[3] for found in keys if found[0] == key)
        (value,) = cursor.execute(
            f"SELECT {quoted(column)} FROM {quoted(table)} WHERE rowid = %s", [row]
        ).fetchone()
    return column, value


def _dangling_references() -> set[tuple[str, int, str, int]]:
    with connection.cursor() as cursor:
        return set(cursor.execute("PRAGMA foreign_key_check").fetchall())


def commit_lazily() -> None:
    """Let this transaction's commit return before it is on disk: a lost batch is run again."""
    if not dialect().has_one_writer:
        with connection.cursor() as cursor:
            cursor.execute("SET LOCAL synchronous_commit = off")
