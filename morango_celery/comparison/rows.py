"""Rows that a side left behind, with a hash for each column.

PostgreSQL hashes them itself, and only those that this transaction wrote: a row tells by its ``xmin``. All
others are counted, so that a deletion shows. SQLite's rows are read here, all of them.
"""

from __future__ import annotations

import json
from collections.abc import Generator, Iterator, Mapping, Sequence
from contextlib import closing
from typing import Any, Protocol

from django.db import connection

from morango_celery.comparison.results import UNTOUCHED, LeftRow
from morango_celery.comparison.tables import Table
from morango_celery.db.dialect import dialect

CHUNK_ROWS = 2000

STORE_DETAIL = (
    "model_name",
    "deleted",
    "hard_deleted",
    "dirty_bit",
    "deserialization_exception",
    "deserialization_error",
)
"""Columns of a Store row by which a documented deviation is recognized."""


Rows = Generator[LeftRow, None, None]
"""Rows that are read as they are asked for; whoever asks closes them."""


class Reader(Protocol):
    """Reader of the rows that a side left behind, in its open transaction."""

    def writes(self) -> Mapping[str, int] | None:
        """Return how many rows this transaction has written so far, by table; None if that isn't known."""

    def written(self, table: Table) -> Rows:
        """Yield the rows that this transaction wrote, or all rows, if they don't tell who wrote them."""

    def untouched(self, table: Table) -> Rows:
        """Yield the keys of the other rows."""

    def untouched_digest(self, table: Table) -> tuple[Any, ...]:
        """Return a value that is the same for the same set of untouched rows."""

    def at(self, table: Table, keys: Sequence[str]) -> Rows:
        """Yield the rows with these keys as they are now."""


def reader(*, show_values: bool) -> Reader:
    """Return the reader for the default database.

    :param show_values: whether rows have all their values as details
    """
    if dialect().marks_written_rows:
        return MarkedRows(show_values)
    return PlainRows(show_values)


class MarkedRows:
    """Reader of a database whose rows tell the transaction that wrote them (PostgreSQL)."""

    _OURS = "age(xmin) <= 0"
    _OTHERS = "age(xmin) > 0"

    def __init__(self, show_values: bool) -> None:
        self._show_values = show_values
        with connection.cursor() as cursor:
            # Before the first write a transaction has no number, and age() would count from the next one
            cursor.execute("SELECT txid_current(), current_setting('track_counts')::boolean")
            self._counts = cursor.fetchone()[1]

    def writes(self) -> Mapping[str, int] | None:
        if not self._counts:
            return None
        with connection.cursor() as cursor:
            cursor.execute(
                "SELECT relname, sum(n_tup_ins + n_tup_upd + n_tup_del)::bigint FROM pg_stat_xact_user_tables"
                " GROUP BY relname"
            )
            return dict(cursor.fetchall())

    def written(self, table: Table) -> Rows:
        return self._rows(table, self._OURS)

    def untouched(self, table: Table) -> Rows:
        for (key,) in _fetched(f"SELECT {_key(table)} FROM {table.quoted} WHERE {self._OTHERS}"):
            yield LeftRow(key, UNTOUCHED)

    def untouched_digest(self, table: Table) -> tuple[Any, ...]:
        with connection.cursor() as cursor:
            cursor.execute(
                f"SELECT count(*), sum(hashtextextended({_key(table)}, 0)) FROM {table.quoted}"
                f" WHERE {self._OTHERS}"
            )
            digest: tuple[Any, ...] = cursor.fetchone()
        return digest

    def at(self, table: Table, keys: Sequence[str]) -> Rows:
        if keys:
            yield from self._rows(table, f"{_key(table)} = ANY(%s)", [list(keys)])

    def _rows(self, table: Table, condition: str, parameters: Sequence[Any] = ()) -> Rows:
        hashes = ", ".join(f"hashtextextended({column}::text, 0)" for column in table.quoted_columns)
        sql = (
            f"SELECT {_key(table)}, array_to_string(ARRAY[{hashes}], ',', '-'), {self._detail(table)}"
            f" FROM {table.quoted} AS t WHERE {condition}"
        )
        if table.key is table.columns:  # a row is its content, so equal rows are counted
            sql = f"SELECT k || ' x' || count(*), min(h), min(d) FROM ({sql}) AS r (k, h, d) GROUP BY k"
        for row in _fetched(sql, parameters):
            yield LeftRow(*row)

    def _detail(self, table: Table) -> str:
        if self._show_values:
            return "to_jsonb(t)::text"
        if table.is_store:
            return f"json_build_object({', '.join(f'{name!r}, {name}' for name in STORE_DETAIL)})::text"
        return "NULL::text"


def _key(table: Table) -> str:
    if table.key is table.columns:
        return f"md5(ROW({', '.join(table.quoted_columns)})::text)"
    parts = [
        dialect().hex_digits(quoted) if name in table.ids else f"{quoted}::text"
        for name, quoted in zip(table.key, table.quoted_key, strict=True)
    ]
    return f"concat_ws('/', {', '.join(parts)})"


class PlainRows:
    """Reader of a database whose rows don't tell who wrote them (SQLite)."""

    def __init__(self, show_values: bool) -> None:
        self._show_values = show_values

    def writes(self) -> Mapping[str, int] | None:
        return None

    def written(self, table: Table) -> Rows:
        return self._rows(table)

    def _rows(self, table: Table, condition: str = "", parameters: Sequence[Any] = ()) -> Rows:
        """Yield rows of a table; their hashes hold for this process only."""
        # An expression has no declared type, so that no converter touches, or refuses, its value
        columns = ", ".join(f"+{column}" for column in table.quoted_columns)
        key = ", ".join(f"+{column}" for column in table.quoted_key)
        count = len(table.key)
        names = table.columns if self._show_values else STORE_DETAIL if table.is_store else ()
        places = [(name, table.columns.index(name)) for name in names]
        twins: dict[str, int] = {}
        for row in _fetched(f"SELECT {key}, {columns} FROM {table.quoted} {condition}", parameters):
            values = row[count:]
            hashes = ",".join([f"{hash((value.__class__, value)):x}" for value in values])
            label = "/".join(map(str, row[:count]))
            if table.key is table.columns:
                label = hashes
                twins[label] = twins.get(label, 0) + 1
                label += f" x{twins[label]}"
            detail = json.dumps({name: values[place] for name, place in places}, default=repr)
            yield LeftRow(label, hashes, detail if places else None)

    def untouched(self, table: Table) -> Rows:
        yield from ()

    def untouched_digest(self, table: Table) -> tuple[Any, ...]:
        return ()

    def at(self, table: Table, keys: Sequence[str]) -> Rows:
        if keys and len(table.key) == 1 and table.ids:
            condition = f"WHERE {table.quoted_key[0]} {dialect().id_list}"
            yield from self._rows(table, condition, [dialect().ids(keys)])
        elif keys:
            wanted = set(keys)
            yield from (row for row in self._rows(table) if row.key in wanted)


def _fetched(sql: str, parameters: Sequence[Any] = ()) -> Iterator[tuple[Any, ...]]:
    with closing(connection.chunked_cursor()) as cursor:
        cursor.execute(sql, parameters or None)
        while rows := cursor.fetchmany(CHUNK_ROWS):
            yield from rows
