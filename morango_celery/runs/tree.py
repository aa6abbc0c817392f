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
_BY_PARENT = "CREATE INDEX by_parent ON waiting (parent)"
_READY = """
    CREATE TABLE ready AS SELECT id, bytes FROM waiting AS record
    WHERE NOT is_last AND NOT EXISTS (SELECT * FROM waiting AS parent WHERE parent.id = record.parent)
    ORDER BY place
"""
_WITH_DESCENDANTS = """
    WITH RECURSIVE wave (id, bytes) AS (
        SELECT id, bytes FROM ready
        UNION ALL
        SELECT child.id, child.bytes FROM wave JOIN waiting AS child ON child.parent = wave.id
        WHERE NOT child.is_last
    )
    SELECT id, bytes FROM wave LIMIT ?
"""


def next_wave(nodes: Iterable[Node], size: int, size_bytes: int) -> Iterator[tuple[str, int]]:
    """Yield the ids of records that may be tried now, with their bytes.

    None of them waits for a parent outside of its own batch. If the records that wait for no parent fit one
    batch, their descendants follow, generation by generation, as long as there is room. Nothing is yielded if
    the rest can't be put in an order, or has to be left to the last as a whole.

    :param nodes: all records of the tree that wait
    :param size: number of records that a batch holds
    :param size_bytes: bytes of JSON that a batch holds
    Cost: one reading of `nodes` and two indexes of them, about 100 bytes of disk each.
    """
    with closing(sqlite3.connect("")) as scratch:
        scratch.execute("PRAGMA journal_mode = OFF")
        scratch.execute(_TABLE)
        scratch.executemany("INSERT INTO waiting (id, bytes, parent, is_last) VALUES (?, ?, ?, ?)", nodes)
        scratch.execute(_BY_ID)  # after the rows, so that they are sorted once
        scratch.execute(_READY)
        ready, ready_bytes = scratch.execute("SELECT count(*), total(bytes) FROM ready").fetchone()
        if ready > size or ready_bytes > size_bytes:
            yield from scratch.execute("SELECT id, bytes FROM ready")
            return
        scratch.execute(_BY_PARENT)
        left_bytes = size_bytes
        for store_id, record_bytes in scratch.execute(_WITH_DESCENDANTS, [size]):
            left_bytes -= record_bytes
            if left_bytes < 0:
                return
            yield store_id, record_bytes
