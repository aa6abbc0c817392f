"""Privileges of the database's role on the tables that runs read and write."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field

from django.apps import apps
from django.db import DEFAULT_DB_ALIAS, connection, router
from django.db.models import AutoField, Model

from morango_celery.upstream import profiles, registered_models

LABELS = ("morango", "morango_celery", "morango_celery_oplog", "morango_celery_payloads")
"""Labels of the apps whose tables are needed, besides those of syncable models."""

PRIVILEGES = ("SELECT", "INSERT", "UPDATE", "DELETE")


@dataclass
class Lacks:
    """Tables that are missing, and privileges that the role lacks."""

    role: str
    tables: list[str]
    """Missing tables."""
    privileges: dict[str, list[str]] = field(default_factory=dict)
    """Lacking privileges, by table."""
    sequences: list[str] = field(default_factory=list)
    """Sequences of primary keys that may not be used."""

    def grants(self) -> str:
        """Return the statements that give the role what it lacks."""
        tables: dict[tuple[str, ...], list[str]] = {}
        for table, lacking in self.privileges.items():
            tables.setdefault(tuple(lacking), []).append(table)
        quoted = connection.ops.quote_name(self.role)
        statements = [
            f"GRANT {', '.join(lacking)} ON {', '.join(named)} TO {quoted};"
            for lacking, named in tables.items()
        ]
        if self.sequences:
            statements.append(f"GRANT USAGE ON SEQUENCE {', '.join(self.sequences)} TO {quoted};")
        return " ".join(statements)


def lacks() -> Lacks:
    """Return what the role of this connection to PostgreSQL lacks.

    Cost: two statements, which read catalogs.
    """
    models = list(_models())
    names = [_quoted(model) for model in models]
    keyed = [model for model in models if isinstance(model._meta.pk, AutoField)]
    with connection.cursor() as cursor:
        cursor.execute(
            "SELECT current_user, named, privilege, to_regclass(named) IS NULL"
            " FROM unnest(%s::text[]) WITH ORDINALITY AS tables (named, place)"
            " CROSS JOIN unnest(%s::text[]) WITH ORDINALITY AS privileges (privilege, rank)"
            " WHERE to_regclass(named) IS NULL OR NOT has_table_privilege(to_regclass(named), privilege)"
            " ORDER BY place, rank",
            [names, list(PRIVILEGES)],
        )
        rows = cursor.fetchall()
        found = Lacks(rows[0][0] if rows else "", [])
        for _, name, privilege, is_missing in rows:
            if not is_missing:
                found.privileges.setdefault(name, []).append(privilege)
            elif name not in found.tables:
                found.tables.append(name)
        cursor.execute(
            "SELECT current_user, sequence FROM (SELECT pg_get_serial_sequence(named, key) AS sequence"
            " FROM unnest(%s::text[], %s::text[]) AS tables (named, key)"
            " WHERE to_regclass(named) IS NOT NULL) AS sequences"
            " WHERE NOT has_sequence_privilege(sequence, 'USAGE, UPDATE') ORDER BY sequence",
            [[_quoted(model) for model in keyed], [str(model._meta.pk.column) for model in keyed]],
        )
        for found.role, sequence in cursor.fetchall():
            found.sequences.append(sequence)
    return found


def _models() -> Iterator[type[Model]]:
    """Yield a model for each table that runs read or write, in the default database."""
    syncable = {model for profile in profiles() for model in registered_models(profile)}
    parents = {parent for model in syncable for parent in model._meta.get_parent_list()}
    seen: set[str] = set()
    for model in _sorted(apps.get_models(include_auto_created=True)):
        options = model._meta
        is_needed = options.app_label in LABELS or model in syncable or model in parents
        if not is_needed or options.proxy or not options.managed or options.db_table in seen:
            continue
        if router.allow_migrate_model(DEFAULT_DB_ALIAS, model):
            seen.add(options.db_table)
            yield model


def _sorted(models: Iterable[type[Model]]) -> list[type[Model]]:
    return sorted(models, key=lambda model: str(model._meta.db_table))


def _quoted(model: type[Model]) -> str:
    return str(connection.ops.quote_name(model._meta.db_table))
