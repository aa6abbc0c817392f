"""System check of the indexes by which a sync finds waiting rows in large tables."""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

from django.core.checks import CheckMessage, Tags, Warning, register  # noqa: A004  (as Django names it)
from django.db import DEFAULT_DB_ALIAS, DatabaseError, InterfaceError

from morango_celery.db.dialect import dialect
from morango_celery.reading.indexes import states, sync_indexes

LARGE_ROWS = 100_000
"""Size at which reading a whole table, as each sync does without its index, takes some 10 ms."""

NAMED = 3
"""Number of tables that a message names at most."""


@register("morango_celery", Tags.database)
def check_sync_indexes(
    app_configs: Any = None, databases: Collection[str] | None = None, **kwargs: Any
) -> list[CheckMessage]:
    """Warn of large tables without a valid index of waiting rows. Django calls it where queries are allowed.

    Cost: one statement, which reads catalogs only: the planner knows the size of a table.
    """
    if DEFAULT_DB_ALIAS not in (databases or ()) or not dialect().builds_indexes_concurrently:
        return []
    try:
        found = states(sync_indexes())
    except (DatabaseError, InterfaceError):  # the next use of the database reports its fault
        return []
    missing = [state for state in found if state.rows >= LARGE_ROWS and state.is_plain_table]
    missing = sorted((s for s in missing if not s.is_valid), key=lambda state: -state.rows)
    if not missing:
        return []
    names = [f"{state.index.table} (about {state.rows:,} rows)" for state in missing[:NAMED]]
    names += [f"{len(missing) - NAMED} more"] if len(missing) > NAMED else []
    return [
        Warning(
            f"Each sync reads large tables from end to end, for lack of an index: {', '.join(names)}.",
            hint="Run `manage.py create_sync_indexes`. Others go on writing meanwhile.",
            id="morango_celery.W010",
        )
    ]
