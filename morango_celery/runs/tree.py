"""Waves of a tree that is larger than a batch: parents before their children.

The records are indexed by their parents in a scratch database of SQLite, on PostgreSQL too. SQLite moves it
to a temporary file when it gets large, so memory doesn't grow with the tree. The time that this takes depends
neither on another database's statistics, nor on an index that Morango's table would need.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable, Iterator
from contextlib import closing

Node = tuple[str, int, str, bool]
"""The id of a waiting record; its bytes; its parent's id, if it has one; and True if it has to be left to the
last."""

_TABLE = (
    "CREATE TABLE waiting (place INTEGER PRIMARY KEY, id TEXT, bytes INTEGER, parent TEXT, is_last BOOLEAN)"
)
_BY_ID = "CREATE UNIQUE INDEX by_id ON waiting (id)"
_BY_PARENT = "CREATE INDEX IF NOT EXISTS by_parent ON waiting (parent)"
_READY = """
    CREATE TABLE ready AS SELECT place, id, bytes FROM waiting AS record
    WHERE NOT is_last AND NOT EXISTS (SELECT * FROM waiting AS parent WHERE parent.id = record.parent)
    ORDER BY place
"""
_WITH_DESCENDANTS = """
    WITH RECURSIVE wave (place, id, bytes) AS (
        SELECT place, id, bytes FROM ready
        UNION ALL
        SELECT child.place, child.id, child.bytes FROM wave JOIN waiting AS child ON child.parent = wave.id
        WHERE NOT child.is_last
    )
    SELECT place, id, bytes FROM wave LIMIT ?
"""
_REMOVE = (
    "DELETE FROM waiting WHERE place IN (SELECT place FROM taken)",
    _BY_PARENT,
    "DELETE FROM ready",
    """
    INSERT INTO ready SELECT child.place, child.id, child.bytes
    FROM taken JOIN waiting AS child ON child.parent = taken.id WHERE NOT child.is_last ORDER BY child.place
    """,
    "DELETE FROM taken",
)
_PAGE_ROWS = 2000


class Forest:
    """The records of a tree that wait, in a scratch database, and their waves.

    Cost: one reading of the nodes and two indexes of them, about 100 bytes of disk each.
    """

    def __init__(self, nodes: Iterable[Node]) -> None:
        """
        :param nodes: all records of the tree that wait
        """
        self._scratch = sqlite3.connect("")
        self._scratch.execute("PRAGMA journal_mode = OFF")
        self._scratch.execute(_TABLE)
        self._scratch.executemany(
            "INSERT INTO waiting (id, bytes, parent, is_last) VALUES (?, ?, ?, ?)", nodes
        )
        self._scratch.execute(_BY_ID)  # after the rows, so that they are sorted once
        self._scratch.execute(_READY)
        self._scratch.execute("CREATE TABLE taken (place INTEGER PRIMARY KEY, id TEXT)")

    def close(self) -> None:
        """Remove the scratch database."""
        self._scratch.close()

    def wave(self, size: int, size_bytes: int) -> Iterator[tuple[int, str, int]]:
        """Yield the records that may be tried now: the number of each among all nodes, its id, its bytes.

        None of them waits for a parent outside of its own batch. If the records that wait for no parent fit
        one batch, their descendants follow, generation by generation, as long as there is room. Nothing is
        yielded if the rest can't be put in an order, or has to be left to the last as a whole.

        :param size: number of records that a batch holds
        :param size_bytes: bytes of JSON that a batch holds
        """
        total = "SELECT count(*), total(bytes) FROM ready"
        ready, ready_bytes = self._scratch.execute(total).fetchone()
        if ready > size or ready_bytes > size_bytes:
            yield from self._scratch.execute("SELECT place, id, bytes FROM ready")
            return
        self._scratch.execute(_BY_PARENT)
        left_bytes = size_bytes
        for place, store_id, record_bytes in self._scratch.execute(_WITH_DESCENDANTS, [size]):
            left_bytes -= record_bytes
            if left_bytes < 0:
                return
            yield place, store_id, record_bytes

    def take_wave(self, size: int, size_bytes: int) -> Iterator[tuple[int, int]]:
        """Yield the numbers and the bytes of a wave, and remove its records once all were yielded.

        So the next call yields the wave that follows when these records are done.
        """
        for place, store_id, record_bytes in self.wave(size, size_bytes):
            self._scratch.execute("INSERT INTO taken (place, id) VALUES (?, ?)", [place, store_id])
            yield place, record_bytes
        for statement in _REMOVE:
            self._scratch.execute(statement)

    def rest(self) -> Iterator[tuple[int, int]]:
        """Yield the numbers and the bytes of the records that are left, in the order of the nodes."""
        page = "SELECT place, bytes FROM waiting WHERE place > ? ORDER BY place LIMIT ?"
        rows = [(0, 0)]
        while rows := self._scratch.execute(page, [rows[-1][0], _PAGE_ROWS]).fetchall():
            yield from rows


def next_wave(nodes: Iterable[Node], size: int, size_bytes: int) -> Iterator[tuple[str, int]]:
    """Yield the ids and the bytes of `Forest.wave`, for nodes that are needed but once."""
    with closing(Forest(nodes)) as forest:
        for _, store_id, record_bytes in forest.wave(size, size_bytes):
            yield store_id, record_bytes
