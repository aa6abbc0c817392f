"""Looks at the database: whether it answers, its tables, the role's privileges, and its clock."""

from __future__ import annotations

import time
from collections.abc import Iterator

from django.db import connection
from django.db.migrations.executor import MigrationExecutor

from morango_celery.db.dialect import dialect
from morango_celery.health.findings import Finding, Severity
from morango_celery.health.grants import lacks

CLOCK_DIFFERENCE_SECONDS = 5.0
"""Difference of clocks that is worth a warning. Runs do without right clocks; who compares logs doesn't."""

NAMED = 3
"""Number of tables or migrations that a line names."""


NEEDED_APPS = ("morango", "morango_celery")
"""Labels of the apps whose tables every run needs."""

ON_TABLES = ("grants", "workers", "runs")
"""Looks at these apps' tables."""


def look_at_database() -> Iterator[Finding]:
    began = time.monotonic()
    with connection.cursor() as cursor:
        cursor.execute("SELECT 1")
    milliseconds = (time.monotonic() - began) * 1000
    name = connection.settings_dict["NAME"]
    yield Finding(
        "database", Severity.OK, f"{connection.display_name} {name!r} answered in {milliseconds:.0f} ms"
    )


def look_at_migrations() -> Iterator[Finding]:
    executor = MigrationExecutor(connection)
    plan = executor.migration_plan(executor.loader.graph.leaf_nodes())
    if not plan:
        yield Finding("migrations", Severity.OK, "all are applied")
        return
    names = [f"{migration.app_label}.{migration.name}" for migration, _ in plan]
    text, remedy = f"not applied: {_some(names)}", "Run `manage.py migrate` as the owner."
    if {migration.app_label for migration, _ in plan}.isdisjoint(NEEDED_APPS):
        yield Finding("migrations", Severity.ERROR, text, remedy)
        return
    if not any(app == "morango_celery" for app, _ in executor.loader.applied_migrations):
        text = f"the tables of morango_celery are not there yet; {text}"
    remedy += " Grants, workers and runs are looked at after that."
    yield Finding("migrations", Severity.ERROR, text, remedy, prevents=ON_TABLES)


def look_at_grants() -> Iterator[Finding]:
    if not dialect().has_sqlstates:  # a file has no roles
        yield Finding("grants", Severity.OK, f"{connection.display_name} has no roles")
        return
    found = lacks()
    if found.tables:
        text = f"missing tables: {_some(found.tables)}"
        yield Finding("grants", Severity.ERROR, text, "Run `manage.py migrate` as the owner.")
    lacking = [f"USAGE on schema {schema}" for schema in found.schemas]
    lacking += [f"{', '.join(privileges)} on {table}" for table, privileges in found.privileges.items()]
    lacking += [f"USAGE on {sequence}" for sequence in found.sequences]
    if found.only_reads:
        text = f"the role {found.role!r} only reads, which is enough for monitors"
        remedy = "Let doctor look as the role that carries out runs: whether that one may is not known here."
        yield Finding("grants", Severity.WARNING, text, remedy)
    elif lacking:
        text = f"the role {found.role!r} lacks {_some(lacking)}"
        yield Finding("grants", Severity.ERROR, text, f"As the owner of the tables: {found.grants()}")
    elif not found.tables:
        yield Finding("grants", Severity.OK, "the role may read and write all tables of runs and syncs")


def look_at_clock() -> Iterator[Finding]:
    if not dialect().tells_time:
        yield Finding("clock", Severity.OK, "the database has this machine's")
        return
    before = time.time()
    with connection.cursor() as cursor:
        cursor.execute("SELECT extract(epoch FROM clock_timestamp())::float8")
        (theirs,) = cursor.fetchone()
    seconds = theirs - (before + time.time()) / 2
    text = f"the database's is {abs(seconds):.1f} s {'ahead of' if seconds > 0 else 'behind'} this machine's"
    if abs(seconds) <= CLOCK_DIFFERENCE_SECONDS:
        yield Finding("clock", Severity.OK, text)
    else:
        remedy = "Synchronize both clocks (NTP): runs are safe, but times in logs and in the ledger differ."
        yield Finding("clock", Severity.WARNING, text, remedy)


def _some(names: list[str]) -> str:
    more = len(names) - NAMED
    return "; ".join(names[:NAMED]) + (f"; and {more:,} more" if more > 0 else "")
