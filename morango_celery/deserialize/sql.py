"""The hand-written SQL of a batch, for PostgreSQL and SQLite. Nothing else writes SQL.

On PostgreSQL rows travel as one JSON parameter, which the server turns into rows of the table's own
types; so the statement is the same whatever the number of rows, and its plan is cheap. On SQLite
``executemany`` of one prepared statement is fastest.
"""

from __future__ import annotations

import datetime
import decimal
import json
import uuid
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import psycopg2.extras
from django.db import DatabaseError, IntegrityError, InterfaceError, OperationalError, connection
from django.db.models import Field, Model
from morango.models.core import Store, SyncableModel

from morango_celery.reading.ids import id_array
from morango_celery.upstream import uses_postgresql

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
"""In the model's own order, as ``Store.from_db`` takes them."""

_CLEAN = "dirty_bit = %s, deserialization_error = NULL, deserialization_exception = NULL"

_BY_ID_IN_ORDER = (
    f"rowid IN (SELECT rowid FROM {Store._meta.db_table} WHERE id IN (SELECT value FROM json_each(%s)))"
)
"""Store rows by a list of ids on SQLite, page by page: in the order of random ids nearly each row is on
another page than the one before it."""

_TRANSIENT_CLASSES = ("08", "40", "53", "57")
_TRANSIENT_CODES = ("55P03", "25006", "25P03", "25P04")
"""Locked; read-only, as a server is that others have replaced, or are about to; a transaction that idled, or
took, too long."""
_ASKED_TOO_MUCH = ("57014", "53200", "53400")
"""Cancelled, by a timeout most likely; no memory left; more than anybody may have, as of temporary files."""

NO_RECORDS_FAULT = (DatabaseError, InterfaceError, MemoryError)
"""What may be raised while a model's code runs and says more about this machine than about the record."""

_JSON_TYPES = {"json", "jsonb"}
_TYPES_WITHOUT_EQUALITY = {"json", "xml", "point", "polygon"}


def claim(profile: str, store_ids: Sequence[str]) -> list[tuple[Any, ...]]:
    """Take the still dirty records among `store_ids`: lock and read them.

    PostgreSQL marks them as clean in the same statement: writing a wide row twice costs more than everything
    else that a batch does, and most records don't fail. SQLite has one writer, which may wait for `settle`.

    :returns: `CLAIMED_COLUMNS` of each record, in no particular order
    """
    table = connection.ops.quote_name(Store._meta.db_table)
    with connection.cursor() as cursor:
        if uses_postgresql():
            columns = ["replace(id::text, '-', '')" if c == "id" else c for c in CLAIMED_COLUMNS]
            cursor.execute(
                f"UPDATE {table} SET {_CLEAN} WHERE id = ANY(%s::uuid[]) AND dirty_bit AND profile = %s"
                f" RETURNING {', '.join(columns)}",
                [False, id_array(store_ids), profile],
            )
            return list(cursor.fetchall())
        # The plus signs keep SQLite from reading, by Morango's index, whatever is dirty
        cursor.execute(
            f"SELECT {', '.join(CLAIMED_COLUMNS)} FROM {table}"
            f" WHERE {_BY_ID_IN_ORDER} AND +dirty_bit AND +profile = %s",
            [json.dumps(list(store_ids)), profile],
        )
        return list(cursor.fetchall())


def take_write_lock() -> None:
    """On SQLite, become the writer before reading: a reader can't become one once another has."""
    if not uses_postgresql():
        with connection.cursor() as cursor:
            cursor.execute(f"UPDATE {Store._meta.db_table} SET dirty_bit = dirty_bit WHERE 0")


def lock_table(model: type[Model]) -> None:
    """Let nobody else write rows of `model` until this transaction ends; reading goes on."""
    take_write_lock()
    if uses_postgresql():
        with connection.cursor() as cursor:
            cursor.execute(
                f"LOCK TABLE {connection.ops.quote_name(model._meta.db_table)} IN SHARE ROW EXCLUSIVE MODE"
            )


def settle(claimed: Iterable[str], returned: Sequence[tuple[str, str | None, str | None]]) -> None:
    """Leave claimed records clean, but for those that are returned: dirty, with what was wrong with them.

    :param claimed: the ids of all, of those that are returned too
    :param returned: id, error text and exception path of each
    """
    table = connection.ops.quote_name(Store._meta.db_table)
    with connection.cursor() as cursor:
        if not uses_postgresql():
            done = set(claimed).difference(store_id for store_id, *_ in returned)
            cursor.execute(
                f"UPDATE {table} SET {_CLEAN} WHERE {_BY_ID_IN_ORDER}", [False, json.dumps(list(done))]
            )
        if not returned:
            return
        if uses_postgresql():
            ids, errors, exceptions = (list(column) for column in zip(*returned, strict=True))
            cursor.execute(
                f"UPDATE {table} SET dirty_bit = true, deserialization_error = failed.error,"
                " deserialization_exception = failed.exception"
                " FROM unnest(%s::uuid[], %s::text[], %s::text[]) AS failed (id, error, exception)"
                f" WHERE {table}.id = failed.id",
                [id_array(ids), errors, exceptions],
            )
        else:
            said = {store_id: (error, exception) for store_id, error, exception in returned}
            cursor.execute(f"SELECT id, rowid FROM {table} WHERE {_BY_ID_IN_ORDER}", [json.dumps(list(said))])
            cursor.executemany(
                f"UPDATE {table} SET deserialization_error = %s, deserialization_exception = %s"
                " WHERE rowid = %s",
                [(*said[store_id], rowid) for store_id, rowid in cursor.fetchall()],
            )


def look_up(
    model: type[Model], key: str, columns: Sequence[str], ids: Iterable[str]
) -> list[tuple[Any, ...]]:
    """Rows by a column of ids: the id as 32 hex digits, then `columns`, in no particular order.

    As the ORM would, without turning every id into a `UUID` and back.
    """
    quote = connection.ops.quote_name
    table, found = quote(model._meta.db_table), ", ".join(map(quote, columns))
    with connection.cursor() as cursor:
        if uses_postgresql():
            cursor.execute(
                f"SELECT replace({quote(key)}::text, '-', ''), {found} FROM {table}"
                f" WHERE {quote(key)} = ANY(%s::uuid[])",
                [id_array(ids)],
            )
        else:
            cursor.execute(
                f"SELECT {quote(key)}, {found} FROM {table}"
                f" WHERE {quote(key)} IN (SELECT value FROM json_each(%s))",
                [json.dumps(list(ids))],
            )
        return list(cursor.fetchall())


def upsert(
    model: type[SyncableModel], fields: Sequence[Field[Any, Any]], rows: Sequence[Sequence[Any]]
) -> set[str]:
    """Insert rows of one model, or overwrite those that exist and carry no local edit.

    :param fields: the concrete fields written, the primary key among them
    :param rows: their values as `Field.get_db_prep_save` makes them, at least one row
    :returns: the ids that were left alone because of a local edit (the app row's dirty bit)
    :raises DatabaseError: a constraint, a type or the connection; nothing is known to be written
    """
    key_at = [field.column for field in fields].index(_key(model))
    ids = {str(row[key_at]) for row in rows}
    written = insert(model, fields, rows, _on_conflict(model, fields))
    return set() if written == len(ids) else _edited(model, ids)


def reads_stored_rows() -> bool:
    """Whether the database reads a record's JSON as Python does. SQLite doesn't: its numbers differ."""
    return uses_postgresql()


def upsert_stored(
    model: type[SyncableModel],
    fields: Sequence[Field[Any, Any]],
    stored_as: Mapping[str, str],
    store_ids: Sequence[str],
) -> set[str]:
    """`upsert` rows as the JSON of their Store rows has them: the server has read it already.

    :param fields: the concrete fields written
    :param stored_as: fields whose value is a column of the Store row
    :param store_ids: records whose JSON has all other fields under their own names
    :raises DatabaseError: as `upsert`; or the server doesn't take the JSON
    """
    quote = connection.ops.quote_name
    table, store = quote(model._meta.db_table), quote(Store._meta.db_table)
    values = {name: f"stored.{column}" for name, column in stored_as.items()} | {
        "_morango_dirty_bit": "false"
    }
    names = ", ".join(quote(field.column) for field in fields)
    read = ", ".join(values.get(field.attname, _read(field)) for field in fields)
    with connection.cursor() as cursor:
        cursor.execute(
            f"INSERT INTO {table} ({names}) SELECT {read} FROM {store} AS stored,"
            f" json_populate_record(NULL::{table}, stored.serialized::json) AS synced"
            f" WHERE stored.id = ANY(%s::uuid[]) {_on_conflict(model, fields)}",
            [id_array(store_ids)],
        )
        written = cursor.rowcount
    return set() if written == len(store_ids) else _edited(model, store_ids)


def _read(field: Field[Any, Any]) -> str:
    """The value of a field in a row that was read from JSON, under the name of synced."""
    column = f"synced.{connection.ops.quote_name(field.column)}"
    # In SQL, and so for every other writer, there is no minus zero
    return f"{column} + 0" if field.db_type(connection) == "double precision" else column


def _key(model: type[Model]) -> str:
    key = model._meta.pk
    assert key is not None  # it would be an abstract model
    return key.column


def _edited(model: type[Model], ids: Iterable[str]) -> set[str]:
    """Which rows carry a local edit: after an upsert, those that it left alone."""
    looked_up = look_up(model, _key(model), ["_morango_dirty_bit"], ids)
    return {found for found, is_edited in looked_up if is_edited}


def _on_conflict(model: type[Model], fields: Sequence[Field[Any, Any]]) -> str:
    quote = connection.ops.quote_name
    table, key = quote(model._meta.db_table), _key(model)
    columns = [quote(field.column) for field in fields if field.column != key]
    updates = ", ".join(f"{column} = excluded.{column}" for column in columns)
    return f"ON CONFLICT ({quote(key)}) DO UPDATE SET {updates} WHERE {_overwritable(table, fields)}"


def insert(
    model: type[Model], fields: Sequence[Field[Any, Any]], rows: Sequence[Sequence[Any]], rule: str
) -> int:
    """Insert rows of one model.

    :param fields: the concrete fields written
    :param rows: their values as `Field.get_db_prep_save` makes them
    :param rule: the end of the statement: what to do about rows that exist
    :returns: how many rows were written
    """
    quote = connection.ops.quote_name
    table = quote(model._meta.db_table)
    columns = [field.column for field in fields]
    names = ", ".join(map(quote, columns))
    with connection.cursor() as cursor:
        if uses_postgresql():
            documents = [field.column for field in fields if field.db_type(connection) in _JSON_TYPES]
            records = [dict(zip(columns, row, strict=True)) for row in rows]
            for record in records if documents else ():
                # Text in a JSON document is a JSON string, whatever it says
                record.update({c: json.loads(record[c]) for c in documents if isinstance(record[c], str)})
            cursor.execute(
                f"INSERT INTO {table} ({names})"
                f" SELECT {', '.join(_read(field) for field in fields)}"
                f" FROM json_populate_recordset(NULL::{table}, %s) AS synced {rule}",
                [json.dumps(records, default=_as_json)],
            )
        else:
            marks = ", ".join(["%s"] * len(columns))
            cursor.executemany(f"INSERT INTO {table} ({names}) VALUES ({marks}) {rule}", rows)
        written: int = cursor.rowcount
    return written


def taken(model: type[Model], fields: Sequence[Field[Any, Any]], rows: Sequence[Sequence[Any]]) -> set[int]:
    """The places of the `rows` whose values another row of the table has, as the database compares them.

    :param rows: the primary key and the values of `fields` of each
    """
    quote = connection.ops.quote_name
    table, key = quote(model._meta.db_table), _key(model)
    columns = [key, *(field.column for field in fields)]
    with connection.cursor() as cursor:
        if uses_postgresql():
            place, claims = "ordinality - 1", f"json_populate_recordset(NULL::{table}, %s) WITH ORDINALITY"
            values = [f"claim.{quote(column)}" for column in columns]
            document: list[Any] = [dict(zip(columns, row, strict=True)) for row in rows]
        else:
            place, claims = "key", "json_each(%s)"
            values = [f"json_extract(claim.value, '$[{index}]')" for index in range(len(columns))]
            document = [list(row) for row in rows]
        own, *others = (
            f"there.{quote(column)} {{}} {value}" for column, value in zip(columns, values, strict=True)
        )
        condition = " AND ".join([own.format("<>"), *(other.format("=") for other in others)])
        cursor.execute(
            f"SELECT {place} FROM {claims} AS claim"
            f" WHERE EXISTS (SELECT 1 FROM {table} AS there WHERE {condition})",
            [json.dumps(document, default=_as_json)],
        )
        return {place for (place,) in cursor.fetchall()}


def _overwritable(table: str, fields: Sequence[Field[Any, Any]]) -> str:
    """The condition under which a row may be overwritten.

    A dirty row that equals the synced one holds no edit that could be lost: models' own code creates
    such rows while other records are saved.
    """
    clean = f"NOT {table}._morango_dirty_bit"
    if any(field.db_type(connection) in _TYPES_WITHOUT_EQUALITY for field in fields):
        return clean
    columns = [connection.ops.quote_name(f.column) for f in fields if f.column != "_morango_dirty_bit"]
    ours = ", ".join(f"{table}.{column}" for column in columns)
    synced = ", ".join(f"excluded.{column}" for column in columns)
    equals = "IS NOT DISTINCT FROM" if uses_postgresql() else "IS"
    return f"({clean} OR ({ours}) {equals} ({synced}))"


def _as_json(value: Any) -> Any:
    """What PostgreSQL's input functions read, for values that JSON has no form of."""
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
    have been looked up by then, and `strictly_check_constraints` is there for the rest.

    :raises IntegrityError: a reference points nowhere
    """
    if uses_postgresql():
        connection.check_constraints()


def strict_check() -> Callable[[], None]:
    """A `check_constraints` that finds out on SQLite too, by reading every table with a foreign key.

    References that point nowhere already are nobody's fault, and not reported.
    """
    if uses_postgresql():
        return check_constraints
    before = _dangling_references()

    def check() -> None:
        for table, row, target, key in sorted(_dangling_references() - before):
            column, value = _reference(table, row, key)
            raise IntegrityError(f"{table}.{column} refers to {value!r}, which {target} doesn't have.")

    return check


def _reference(table: str, row: int, key: int) -> tuple[str, Any]:
    """Column and value of a foreign key, by the numbers that SQLite's check has for row and key."""
    quote = connection.ops.quote_name
    with connection.cursor() as cursor:
        keys = cursor.execute(f"PRAGMA foreign_key_list({quote(table)})").fetchall()
        column = next(found[3] for found in keys if found[0] == key)
        (value,) = cursor.execute(
            f"SELECT {quote(column)} FROM {quote(table)} WHERE rowid = %s", [row]
        ).fetchone()
    return column, value


def _dangling_references() -> set[tuple[str, int, str, int]]:
    with connection.cursor() as cursor:
        return set(cursor.execute("PRAGMA foreign_key_check").fetchall())


def is_transient(error: DatabaseError | InterfaceError) -> bool:
    """Whether the database, not the record, is the cause: the same statement may succeed later.

    Tells by the SQLSTATE class (connection, rollback, resources, operator intervention) or, on
    SQLite, by the lock.
    """
    if isinstance(error, InterfaceError):
        return True
    code = sqlstate(error)
    if code is not None:
        return code.startswith(_TRANSIENT_CLASSES) or code in _TRANSIENT_CODES
    if not isinstance(error, OperationalError):
        return False
    return uses_postgresql() or "locked" in str(error) or "busy" in str(error)


def may_be_the_records_fault(error: DatabaseError | InterfaceError) -> bool:
    """Return True if a statement of a transient error asked too much of the server: of time, memory or disk.
    One record may do so, and do it again."""
    return sqlstate(error) in _ASKED_TOO_MUCH


def sqlstate(error: DatabaseError | InterfaceError) -> str | None:
    """Return PostgreSQL's code for an error; None when libpq knows none, as of a connection that was lost."""
    code: str | None = getattr(error.__cause__, "pgcode", None)
    return code


def commit_lazily() -> None:
    """Let this transaction's commit return before it is on disk: a lost batch is run again."""
    if uses_postgresql():
        with connection.cursor() as cursor:
            cursor.execute("SET LOCAL synchronous_commit = off")
