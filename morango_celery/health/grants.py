"""Privileges of the database's role on the tables that runs read and write."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field

from django.apps import apps
from django.db import DEFAULT_DB_ALIAS, connection, router
from django.db.models import Model

from morango_celery.upstream import profiles, registered_models

LABELS = ("morango", "morango_celery", "morango_celery_oplog", "morango_celery_payloads")
"""Labels of the apps whose tables are needed, besides those of syncable models."""

PRIVILEGES = ("SELECT", "INSERT", "UPDATE", "DELETE")


@dataclass
class Lacks:
    """Tables that are missing, and privileges that the role lacks."""

    role: str
    tables: list[str] = field(default_factory=list)
    """Missing tables."""
    schemas: list[str] = field(default_factory=list)
    """Schemas that may not be used."""
    privileges: dict[str, list[str]] = field(default_factory=dict)
    """Lacking privileges, by table."""
    sequences: list[str] = field(default_factory=list)
    """Sequences of primary keys that may not be used."""
    only_reads: bool = False
    """True if it may write no table at all, as a role for monitors."""

    def grants(self) -> str:
        """Return the statements that give the role what it lacks."""
        tables: dict[tuple[str, ...], list[str]] = {}
        for table, lacking in self.privileges.items():
            tables.setdefault(tuple(lacking), []).append(table)
        quoted = connection.ops.quote_name(self.role)
        statements = [f"GRANT USAGE ON SCHEMA {', '.join(self.schemas)} TO {quoted};"] if self.schemas else []
        statements += [
            f"GRANT {', '.join(lacking)} ON {', '.join(named)} TO {quoted};"
            for lacking, named in tables.items()
        ]
        if self.sequences:
            statements.append(f"GRANT USAGE ON SEQUENCE {', '.join(self.sequences)} TO {quoted};")
        return " ".join(statements)


def lacks() -> Lacks:
    """Return what the role of this connection to PostgreSQL lacks.

    Cost: one statement, which reads catalogs; any role may read them.
    """
    tables = [_quoted(model) for model in _models()]
    with connection.cursor() as cursor:
        cursor.execute(_LACKING, [tables, list(PRIVILEGES)])
        rows = cursor.fetchall()
    found = Lacks(rows[0][0] if rows else "")
    for _, kind, name, privilege in rows:
        match kind:
            case "missing":
                found.tables.append(name)
            case "table":
                found.privileges.setdefault(name, []).append(privilege)
            case "schema":
                found.schemas.append(name)
            case "sequence":
                found.sequences.append(name)
    writing = {*PRIVILEGES} - {"SELECT"}
    unwritable = [name for name, lacking in found.privileges.items() if writing <= {*lacking}]
    found.only_reads = 0 < len(unwritable) == len(tables) - len(found.tables)
    return found


# Names are looked up in the catalogs, since `to_regclass` refuses those in a schema that may not be used
_LACKING = """
WITH tables AS (
    SELECT named, place, coalesce(
        CASE WHEN array_length(parse_ident(named), 1) = 1 THEN to_regclass(named)::oid END,
        (SELECT class.oid FROM pg_class AS class JOIN pg_namespace AS space ON space.oid = relnamespace
         WHERE relname = (parse_ident(named))[array_length(parse_ident(named), 1)]::name
         AND nspname = CASE array_length(parse_ident(named), 1) WHEN 1 THEN 'public'
                       ELSE (parse_ident(named))[1] END)) AS id
    FROM unnest(%s::text[]) WITH ORDINALITY AS given (named, place)
)
SELECT current_user::text, 'missing', named, '' FROM tables WHERE id IS NULL
UNION ALL
SELECT * FROM (
    SELECT current_user::text, 'table', named, privilege
    FROM tables CROSS JOIN unnest(%s::text[]) WITH ORDINALITY AS privileges (privilege, rank)
    WHERE NOT has_table_privilege(id, privilege) ORDER BY place, rank) AS of_tables
UNION ALL
SELECT DISTINCT current_user::text, 'schema', quote_ident(nspname), 'USAGE'
FROM tables JOIN pg_class ON pg_class.oid = id JOIN pg_namespace ON pg_namespace.oid = relnamespace
WHERE NOT has_schema_privilege(relnamespace, 'USAGE')
UNION ALL
SELECT current_user::text, 'sequence', pg_class.oid::regclass::text, 'USAGE'
FROM tables JOIN pg_depend
    ON refclassid = 'pg_class'::regclass AND refobjid = id
    AND classid = 'pg_class'::regclass AND deptype IN ('a', 'i')
JOIN pg_class ON pg_class.oid = objid
-- In one expression: the server asks conditions in any order, and the function fails for all but sequences
WHERE CASE WHEN relkind = 'S' THEN NOT has_sequence_privilege(objid, 'USAGE, UPDATE') END
"""


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
