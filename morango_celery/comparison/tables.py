"""Tables that are compared: those of all installed models, but for this app's ledger."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Any

from django.apps import apps
from django.db import connection, router
from django.db.models import AutoField, DateField, Field, Model, TimeField
from morango.models.core import Store
from morango.models.fields.uuids import UUIDField

NOT_COMPARED = frozenset({"morango_celery", "morango_celery_oplog", "morango_celery_payloads"})
"""Labels of apps whose tables only our side writes."""


@dataclass(frozen=True)
class Table:
    """A table's columns as they are compared."""

    name: str
    key: tuple[str, ...]
    """Columns that name a row; all columns if none do, so that a row is named by its content."""
    columns: tuple[str, ...]
    """Columns that are compared. Numbers from a sequence aren't: no rollback resets them."""
    ids: frozenset[str] = frozenset()
    """Columns of Morango's ids, which are written as 32 hex digits."""
    clocks: frozenset[str] = frozenset()
    """Columns of fields with ``auto_now`` or ``auto_now_add``."""

    @cached_property
    def is_store(self) -> bool:
        return bool(self.name == Store._meta.db_table)

    @cached_property
    def quoted(self) -> str:
        return connection.ops.quote_name(self.name)

    @property
    def quoted_key(self) -> list[str]:
        return [connection.ops.quote_name(column) for column in self.key]

    @property
    def quoted_columns(self) -> list[str]:
        return [connection.ops.quote_name(column) for column in self.columns]


def compared_tables() -> list[Table]:
    """Return the tables of all models that the default database has."""
    there = set(connection.introspection.table_names())
    found: dict[str, Table] = {}
    for model in apps.get_models(include_auto_created=True):
        meta = model._meta
        if meta.app_label in NOT_COMPARED or meta.proxy or meta.db_table not in there:
            continue
        if router.allow_migrate_model(connection.alias, model):
            found.setdefault(meta.db_table, _table(model))
    return [table for table in found.values() if table.columns]


def _table(model: type[Model]) -> Table:
    meta = model._meta
    fields = _fields(model)
    columns = tuple(field.column for field in fields if not isinstance(field, AutoField))
    return Table(
        name=meta.db_table,
        key=tuple(_key(model)) or columns,
        columns=columns,
        ids=frozenset(field.column for field in fields if isinstance(field, UUIDField)),
        clocks=frozenset(
            field.column
            for field in fields
            if isinstance(field, DateField | TimeField) and (field.auto_now or field.auto_now_add)
        ),
    )


def _fields(model: type[Model]) -> list[Field[Any, Any]]:
    fields: list[Field[Any, Any]] = model._meta.local_concrete_fields  # type: ignore[attr-defined]  # not in the stubs
    return fields


def _key(model: type[Model]) -> list[str]:
    meta = model._meta
    assert meta.pk is not None
    if not isinstance(meta.pk, AutoField):
        return [meta.pk.column]
    by_name = {field.name: field.column for field in _fields(model)}
    return [by_name[name] for names in meta.unique_together[:1] for name in names]
