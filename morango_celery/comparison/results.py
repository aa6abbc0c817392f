"""Temporary database of the rows that each side left behind: on disk, without a name."""

from __future__ import annotations

import sqlite3
from collections.abc import Generator, Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from typing import Literal

from morango_celery.errors import ComparisonError

SideName = Literal["morango", "ours"]
SIDES: tuple[SideName, SideName] = ("morango", "ours")

UNTOUCHED = ""
"""Hashes of a row that a side didn't write."""

_CHUNK_ROWS = 500
_INSERT = "INSERT OR REPLACE INTO left_row VALUES (?, ?, ?, ?, ?)"


@dataclass(frozen=True)
class LeftRow:
    """A row that a side left behind."""

    key: str
    hashes: str
    """A hash of each column's value, in the order of the table's columns; or `UNTOUCHED`."""
    detail: str | None = None
    """Values as a JSON object, where they are needed."""


@dataclass(frozen=True)
class Pair:
    """One row as each side left it; None where a side has no such row."""

    table: str
    key: str
    morango: LeftRow | None
    ours: LeftRow | None


class Results:
    """Rows of both sides, by table and key."""

    def __init__(self, database: sqlite3.Connection) -> None:
        self._database = database
        database.execute(
            "CREATE TABLE left_row (table_name, key, side, hashes, detail,"
            " PRIMARY KEY (table_name, key, side)) WITHOUT ROWID"
        )

    def add(self, side: SideName, table: str, rows: Generator[LeftRow, None, None]) -> None:
        """Keep rows of a side; later ones take the place of earlier ones with their key."""
        with closing(rows):
            self._database.executemany(
                _INSERT,
                ((table, row.key, side, row.hashes, row.detail) for row in rows),
            )

    def put(self, side: SideName, table: str, row: LeftRow) -> None:
        """Keep a row of a side; it takes the place of an earlier one."""
        self._database.execute(_INSERT, (table, row.key, side, row.hashes, row.detail))

    def clear(self) -> None:
        """Remove all rows."""
        self._database.execute("DELETE FROM left_row")

    def forget(self, side: SideName, table: str) -> None:
        """Remove a side's rows of a table."""
        self._database.execute("DELETE FROM left_row WHERE side = ? AND table_name = ?", (side, table))

    def half_untouched(self, table: str) -> Iterator[list[str]]:
        """Yield the keys of rows that only one of the sides wrote, some at a time."""
        with closing(self._database.cursor()) as cursor:
            cursor.execute(
                "SELECT key FROM left_row WHERE table_name = ? GROUP BY key"
                " HAVING count(*) = 2 AND min(hashes) = '' AND max(hashes) <> ''",
                (table,),
            )
            while rows := cursor.fetchmany(_CHUNK_ROWS):
                yield [key for (key,) in rows]

    def side_that_left(self, table: str, key: str, hashes: str) -> SideName:
        """Return the side with these hashes of a row."""
        query = "SELECT side FROM left_row WHERE table_name = ? AND key = ? AND hashes = ?"
        side: SideName = self._database.execute(query, (table, key, hashes)).fetchone()[0]
        return side

    def differing(self, table: str) -> Iterator[Pair]:
        """Yield the rows of a table that the sides don't share, by key."""
        with closing(self._database.cursor()) as cursor:
            cursor.execute(
                "SELECT key FROM left_row WHERE table_name = ? GROUP BY key"
                " HAVING count(*) = 1 OR min(hashes) <> max(hashes)",
                (table,),
            )
            while found := cursor.fetchmany(_CHUNK_ROWS):
                for (key,) in found:
                    yield Pair(table, key, self.row("morango", table, key), self.row("ours", table, key))

    def rows(self, side: SideName, table: str) -> Iterator[LeftRow]:
        """Yield a side's rows of a table."""
        with closing(self._database.cursor()) as cursor:
            cursor.execute(
                "SELECT key, hashes, detail FROM left_row WHERE side = ? AND table_name = ?", (side, table)
            )
            while found := cursor.fetchmany(_CHUNK_ROWS):
                yield from (LeftRow(*values) for values in found)

    def row(self, side: SideName, table: str, key: str) -> LeftRow | None:
        """Return what a side left of a row."""
        found = self._database.execute(
            "SELECT hashes, detail FROM left_row WHERE side = ? AND table_name = ? AND key = ?",
            (side, table, key),
        ).fetchone()
        return None if found is None else LeftRow(key, *found)


@contextmanager
def temporary_results() -> Iterator[Results]:
    """Open an empty database in the system's folder for temporary files; the system removes it in any case.

    :raises ComparisonError: the disk is full, or can't be written to
    """
    try:
        with closing(sqlite3.connect("", isolation_level=None)) as database:
            database.execute("PRAGMA journal_mode = OFF")
            database.execute("PRAGMA synchronous = OFF")
            yield Results(database)
    except sqlite3.Error as error:
        raise ComparisonError(
            f"The rows could not be compared in the folder for temporary files: {error}. Make room there, or "
            "name another folder in TMPDIR."
        ) from error
