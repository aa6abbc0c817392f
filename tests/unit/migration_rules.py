"""Rules for migrations: the version before has to go on with the new tables, and the next one with the old.

Workers of two neighbouring versions share a database while a project is upgraded. So a migration only adds.
The version that stops using a column lets it be nullable and forgets it; the version after takes it away.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from django.db.migrations import Migration, operations
from django.db.migrations.operations.base import Operation
from django.db.migrations.state import ProjectState
from django.db.models import Field
from django.db.models.fields.related import ForeignKey

Columns = Mapping[str, Sequence[str]]
"""Columns that the last release uses, by table."""

HARMLESS = (
    operations.AddIndex,
    operations.RemoveIndex,
    operations.AlterModelOptions,
    operations.AlterModelManagers,
)
"""They change neither a column nor what may be written."""

NOT_OF_THE_DATABASE = {
    *("blank", "choices", "default", "editable", "error_messages", "help_text", "limit_choices_to"),
    *("on_delete", "related_name", "related_query_name", "validators", "verbose_name"),
}
"""Options of a field that the database doesn't know."""

_DROPPED = re.compile(
    r'ALTER TABLE "?(?P<table>\w+)"? DROP COLUMN "?(?P<column>\w+)"?|DROP TABLE "?(?P<whole>\w+)"?',
    re.IGNORECASE,
)


def flaws(migration: Migration, state: ProjectState, used: Columns) -> Iterator[str]:
    """Yield what a migration does to the version before.

    :param state: the models before it, which this changes
    """
    for operation in migration.operations:
        yield from (
            f"{migration.app_label}.{migration.name}: {operation.describe()}: {flaw}"
            for flaw in _flaws_of(operation, migration, state, used)
        )
        operation.state_forwards(migration.app_label, state)


def _flaws_of(
    operation: Operation, migration: Migration, state: ProjectState, used: Columns
) -> Iterator[str]:
    match operation:
        case operations.CreateModel():
            for _, field in operation.fields:
                yield from _flaws_of_reference(field)
        case operations.AddField():
            if not operation.field.null and not operation.field.many_to_many:
                yield "the version before inserts rows without the column: make it nullable"
            yield from _flaws_of_reference(operation.field)
        case operations.AlterField():
            before = state.models[migration.app_label, operation.model_name_lower].fields[operation.name]
            if _of_database(before) not in (
                _of_database(operation.field),
                _of_database(operation.field, null=False),
            ):
                yield "the version before reads and writes another column: add one instead"
        case operations.SeparateDatabaseAndState():
            for part in operation.database_operations:
                yield from _flaws_of(part, migration, state, used)
            for part in operation.state_operations:
                if isinstance(part, operations.RemoveField):
                    field = state.models[migration.app_label, part.model_name_lower].fields[part.name]
                    if not field.null:
                        yield "this version inserts rows without the column: make it nullable first"
        case operations.RunSQL():
            yield from _flaws_of_sql(operation.sql, used)
        case _ if not isinstance(operation, HARMLESS):
            yield "the version before can't go on: add, or take away by RunSQL what it doesn't use any more"


def _flaws_of_reference(field: Field[Any, Any]) -> Iterator[str]:
    if isinstance(field, ForeignKey) and field.deconstruct()[3].get("db_constraint", True):
        yield f"the version before deletes rows that {field.name} refers to: db_constraint=False"


def _flaws_of_sql(sql: object, used: Columns) -> Iterator[str]:
    for statement in [sql] if isinstance(sql, str) else list(sql):  # type: ignore[call-overload]  # Django's own form
        dropped = _DROPPED.fullmatch(str(statement).strip().rstrip(";"))
        if dropped is None:
            yield "SQL may only take away a column, or a table, that the version before doesn't use"
        elif dropped["whole"] in used or dropped["column"] in used.get(dropped["table"] or "", ()):
            yield "the last release uses it"


def _of_database(field: Field[Any, Any], **changes: object) -> object:
    """Return all of a field that the database knows."""
    _, path, arguments, options = field.deconstruct()
    known = {name: value for name, value in {**options, **changes}.items() if name not in NOT_OF_THE_DATABASE}
    if not known.get("null"):
        known.pop("null", None)
    return path, arguments, known
