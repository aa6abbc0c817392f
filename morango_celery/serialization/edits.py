"""Local edits: found in one statement, however many models and prefixes there are."""

from __future__ import annotations

import json
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

from django.db import connection
from morango.models.certificates import Filter
from morango.models.core import (
    DatabaseMaxCounter,
    DeletedModels,
    HardDeletedModels,
    InstanceIDModel,
    SyncableModel,
)

from morango_celery.db.dialect import dialect
from morango_celery.db.driver import skip_to_last_result
from morango_celery.reading.indexes import dirty_bit_column, edits_table, partition_column
from morango_celery.reading.prefixes import few_around, outermost
from morango_celery.serialization.sql import Saver
from morango_celery.upstream import partition_locks, registered_models

_NOTES = (DeletedModels._meta.db_table, HardDeletedModels._meta.db_table)
_INSTANCES = InstanceIDModel._meta.db_table
_COUNTERS = DatabaseMaxCounter._meta.db_table


@dataclass(frozen=True)
class Edits:
    """Tables in which edits or notes of deletions wait to be serialized."""

    tables: frozenset[str]
    """Names of the tables. One may be here for rows that none of its models' managers shows; none is left
    out."""

    def are_in(self, model: type[SyncableModel]) -> bool:
        """Return True if rows of a model, or of others in its table, were edited."""
        return edits_table(model) in self.tables

    def are_noted_in(self, notes: type[DeletedModels | HardDeletedModels]) -> bool:
        """Return True if deletions of a kind are noted."""
        return notes._meta.db_table in self.tables


def find_edits(profile: str, sync_filter: Filter | None) -> Edits:
    """Return where edits wait under a filter, as the transaction sees it.

    Cost: one statement. It reads a table without edits from end to end, unless there is an index of its
    edits.
    """
    sql, tables, parameters = _search(profile, sync_filter)
    with connection.cursor() as cursor:
        cursor.execute(sql, parameters)
        return Edits(frozenset(tables[place] for (place,) in cursor.fetchall()))


def note_unless_edited(
    profile: str, sync_filter: Filter | None, instance_id: str
) -> tuple[Saver, bool] | None:
    """Raise the instance's counter, and note it for the filter's prefixes if nothing was edited under it.

    It waits for Morango's exclusive lock first. The statement that follows has a view of the data that is
    younger than the lock, and the instance's row is held only from then on.

    :returns: the saver, and whether anything was edited; None if `instance_id` is not the current one
    Cost: one round trip, on PostgreSQL, which knows how to change two tables in one statement.
    """
    search, _, parameters = _search(profile, sync_filter)
    lock, lock_parameters = partition_locks(sync_filter, shared=False)
    prefixes = json.dumps(list(dict.fromkeys(sync_filter or [""])), ensure_ascii=False)
    with connection.cursor() as cursor:
        cursor.execute(
            f"{lock};"  # the view of a statement is as old as its beginning: so this is another one
            f" WITH edited (place) AS ({search} LIMIT 1),"  # one will do: they are merged by another look
            f" raised AS (UPDATE {_INSTANCES} SET counter = counter + 1"
            # Looked for first, and the row locked only then
            " WHERE id = %s AND current AND (SELECT count(*) FROM edited) >= 0 RETURNING id, counter),"
            f" noted AS (INSERT INTO {_COUNTERS} (instance_id, partition, counter)"
            " SELECT raised.id, prefix.value, raised.counter"
            " FROM raised, json_array_elements_text(%s) AS prefix WHERE NOT EXISTS (SELECT 1 FROM edited)"
            " ON CONFLICT (instance_id, partition) DO UPDATE SET counter = excluded.counter)"
            " SELECT counter, EXISTS (SELECT 1 FROM edited) FROM raised",
            [*lock_parameters, *parameters, instance_id, prefixes],
        )
        skip_to_last_result(cursor)
        for counter, is_edited in cursor.fetchall():
            return Saver(instance_id, counter), is_edited
    return None


def _search(profile: str, sync_filter: Filter | None) -> tuple[str, tuple[str, ...], list[Any]]:
    """Return a query for places in a list of tables, that list, and the query's parameters."""
    prefixes = [prefix for prefix in few_around(outermost(sync_filter or ())) if prefix]
    sql, tables = _statement(profile, len(prefixes))
    under = [f"{connection.ops.prep_for_like_query(prefix)}%" for prefix in prefixes]
    return sql, tables, [*under * (len(tables) - len(_NOTES)), *[profile] * len(_NOTES)]


@lru_cache(maxsize=256)
def _statement(profile: str, prefixes: int) -> tuple[str, tuple[str, ...]]:
    """Return the query for tables that have edits under so many prefixes, and these tables in its order."""
    models = {edits_table(model): model for model in registered_models(profile)}
    queries = [
        *(_is_any_edited(name, model, prefixes) for name, model in models.items()),
        *(f"EXISTS (SELECT 1 FROM {name} WHERE profile = %s)" for name in _NOTES),
    ]
    found = (f"SELECT {place} WHERE {query}" for place, query in enumerate(queries))
    return " UNION ALL ".join(found), (*models, *_NOTES)


def _is_any_edited(table: str, model: type[SyncableModel], prefixes: int) -> str:
    name, is_dirty, partition = map(
        connection.ops.quote_name,
        (table, dirty_bit_column(model), partition_column(model)),
    )
    like = f"{partition} LIKE %s{dialect().like_escape}"
    under = f" AND ({' OR '.join([like] * prefixes)})" if prefixes else ""
    order = f" ORDER BY {partition} USING ~<~" if dialect().searches_prefixes else ""
    # The order is that of an index which serves LIKE: the planner takes the first entry of one that has only
    # edited rows, however many it believes to be edited. By old statistics it would read the table for them
    return f"(SELECT 1 FROM {name} WHERE {is_dirty}{under}{order} LIMIT 1) IS NOT NULL"
