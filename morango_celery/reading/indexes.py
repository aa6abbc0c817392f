"""Indexes of waiting rows: app rows that were edited, and Store rows to be deserialized.

Without them, a look for waiting rows under a filter takes longer the more other rows there are. They contain
waiting rows only, so that they are nearly always empty.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from django.db import connection
from django.db.models import Model
from morango.models.core import Store, SyncableModel

from morango_celery.db.dialect import dialect
from morango_celery.upstream import profiles, registered_models

MAX_NAME_BYTES = 63
"""Length of a name that PostgreSQL keeps."""


@dataclass(frozen=True)
class SyncIndex:
    """Index of a table's waiting rows, by their partitions."""

    table: str
    """Name of the table in its model."""
    partition: str
    """Column that a filter's prefixes are compared with."""
    waits: str
    """Column that is true for waiting rows."""

    @property
    def name(self) -> str:
        """Another one for each definition, and the same one in every version that has this definition."""
        words = re.sub(r"\W+", "_", self.table).strip("_")
        definition = f"{self.table}\0{self.partition}\0{self.waits}"
        ending = f"_{hashlib.sha256(definition.encode()).hexdigest()[:8]}_sync"
        room = MAX_NAME_BYTES - len(ending)
        return words.encode()[:room].decode(errors="ignore") + ending

    def creation(self) -> str:
        """Return the statement that creates it. PostgreSQL lets others write to the table meanwhile."""
        quote = connection.ops.quote_name
        name, column, waits = map(quote, (self.name, self.partition, self.waits))
        if not dialect().builds_indexes_concurrently:
            return f"CREATE INDEX {name} ON {quote(self.name_on_sqlite)} ({column}) WHERE {waits}"
        return (
            f"CREATE INDEX CONCURRENTLY {name} ON {quote(self.table)} ({column} text_pattern_ops)"
            f" WHERE {waits}"
        )

    @property
    def name_on_sqlite(self) -> str:
        """Return the table's name without that of the database before it, which an index can't have there."""
        return self.table.rpartition('"."')[2].strip('"')


@dataclass(frozen=True)
class IndexState:
    """Index as the database has it."""

    index: SyncIndex
    table_exists: bool
    is_plain_table: bool = True
    """Not a view, a foreign table or one in partitions, which have no such indexes."""
    exists: bool = False
    is_valid: bool = False
    """Not left unfinished, nor still being made."""
    rows: int = 0
    """About how many the table has, as the planner knows; 0 if it doesn't, and on SQLite."""
    schema: str = ""
    """Schema of table and index; empty on SQLite."""

    def removal(self) -> str:
        """Return the statement that removes it. PostgreSQL lets others use the table meanwhile."""
        quote = connection.ops.quote_name
        if not dialect().builds_indexes_concurrently:
            return f"DROP INDEX {quote(self.index.name)}"
        return f"DROP INDEX CONCURRENTLY {quote(self.schema)}.{quote(self.index.name)}"


def sync_indexes() -> list[SyncIndex]:
    """Return the indexes of all profiles' tables, and that of the Store."""
    models = [model for profile in profiles() for model in registered_models(profile)]
    edited = (SyncIndex(edits_table(m), partition_column(m), dirty_bit_column(m)) for m in models)
    waiting = SyncIndex(Store._meta.db_table, "partition", "dirty_bit")
    return list(dict.fromkeys([*edited, waiting]))


def states(indexes: Sequence[SyncIndex]) -> list[IndexState]:
    """Return the state of each index in the database.

    Cost: one statement, which reads catalogs alone.
    """
    return (
        _states_on_postgresql(indexes)
        if dialect().builds_indexes_concurrently
        else _states_on_sqlite(indexes)
    )


def building_session(state: IndexState) -> int | None:
    """Return the process id of the session that creates an index at the moment, if any does."""
    with connection.cursor() as cursor:
        cursor.execute(
            "SELECT pid FROM pg_stat_progress_create_index WHERE index_relid = to_regclass(%s)",
            [f"{connection.ops.quote_name(state.schema)}.{connection.ops.quote_name(state.index.name)}"],
        )
        found = cursor.fetchone()
    return found and int(found[0])


def edits_table(model: type[SyncableModel]) -> str:
    """Return the table that says of a model's rows whether they were edited; a parent's, if that has it."""
    return str(_field(model, "_morango_dirty_bit").model._meta.db_table)


def dirty_bit_column(model: type[SyncableModel]) -> str:
    """Return the column of `edits_table` that is true for rows that were edited."""
    return str(_field(model, "_morango_dirty_bit").column)


def partition_column(model: type[SyncableModel]) -> str:
    """Return the column of `edits_table` that has the rows' partitions."""
    return str(_field(model, "_morango_partition").column)


def _field(model: type[Model], name: str) -> Any:
    return model._meta.get_field(name)


def _states_on_postgresql(indexes: Sequence[SyncIndex]) -> list[IndexState]:
    quote = connection.ops.quote_name
    with connection.cursor() as cursor:
        cursor.execute(
            "SELECT t.oid IS NOT NULL, t.relkind = 'r',"
            " i.indexrelid IS NOT NULL, i.indisvalid AND i.indisready,"
            " greatest(t.reltuples, 0)::bigint, n.nspname"
            " FROM unnest(%s::text[], %s::text[]) WITH ORDINALITY AS wanted (table_name, index_name, place)"
            " LEFT JOIN pg_class t ON t.oid = to_regclass(wanted.table_name)"
            " LEFT JOIN pg_namespace n ON n.oid = t.relnamespace"
            " LEFT JOIN (pg_index i JOIN pg_class c ON c.oid = i.indexrelid)"
            " ON i.indrelid = t.oid AND c.relname = wanted.index_name"
            " ORDER BY wanted.place",
            [[quote(index.table) for index in indexes], [index.name for index in indexes]],
        )
        return [
            IndexState(index, table, bool(plain), exists, bool(valid), rows or 0, schema or "")
            for index, (table, plain, exists, valid, rows, schema) in zip(
                indexes, cursor.fetchall(), strict=True
            )
        ]


def _states_on_sqlite(indexes: Sequence[SyncIndex]) -> list[IndexState]:
    with connection.cursor() as cursor:
        cursor.execute("SELECT type, name FROM sqlite_master")
        there = set(cursor.fetchall())
    return [
        IndexState(index, ("table", index.name_on_sqlite) in there, exists=exists, is_valid=exists)
        for index in indexes
        for exists in [("index", index.name) in there]
    ]
