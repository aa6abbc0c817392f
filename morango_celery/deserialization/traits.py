"""Traits of models: the methods that their code overrides, and so the way to handle their records."""

from __future__ import annotations

import enum
from collections.abc import Callable
from dataclasses import dataclass
from functools import wraps
from typing import Any, TypeVar, cast

from django.db.models import Field, ForeignKey, Model
from morango.models.core import SyncableModel

from morango_celery.conf import settings
from morango_celery.deserialization.exclusive import is_exclusive
from morango_celery.django_compat import SAVING
from morango_celery.upstream import self_referential_fk

Found = TypeVar("Found")


class WriteStrategy(enum.Enum):
    """Strategy for writing the records of a model."""

    BULK = "bulk"
    """Field values go straight into one upsert: the save chain is Morango's own."""

    CAPTURED_SAVE = "captured save"
    """``save()`` of the model runs, and the row that it would write joins one upsert."""

    INDIVIDUAL = "individual"
    """``save()`` writes each record in a savepoint of its own."""


@dataclass(frozen=True)
class Traits:
    model: type[SyncableModel]
    fields: tuple[Field[Any, Any], ...]
    """Concrete fields, in the order of the table's columns."""
    foreign_keys: tuple[ForeignKey[Any, Any], ...]
    overrides_save: bool
    overrides_deserialize: bool
    overrides_clean_fields: bool
    own_sql: bool
    """True if a field has SQL of its own, so that the column isn't its value alone."""
    spans_tables: bool
    tree_key: ForeignKey[Any, Any] | None
    """Foreign key to the parent record, of models that Morango deserializes as a tree."""

    @property
    def in_tree(self) -> bool:
        return self.tree_key is not None

    @property
    def write_strategy(self) -> WriteStrategy:
        named = self.model._meta.label in settings.SAVE_INDIVIDUALLY
        if self.spans_tables or self.own_sql or named or self.exclusive:
            return WriteStrategy.INDIVIDUAL
        return WriteStrategy.CAPTURED_SAVE if self.overrides_save else WriteStrategy.BULK

    @property
    def exclusive(self) -> bool:
        """Return True if its records are saved one by one, by no two batches at a time."""
        return is_exclusive(self.model)

    @property
    def may_read_unwritten_rows(self) -> bool:
        """Return True if code of a tree's model runs before the parent is written, and might look at it."""
        return self.in_tree and (self.overrides_deserialize or self.overrides_clean_fields)

    @property
    def follows_relations(self) -> bool:
        """Return True if code of the model might follow its foreign keys, and so needs instances."""
        return self.overrides_save or self.overrides_deserialize or self.overrides_clean_fields


_PLAIN_PLACEHOLDERS = ("django.db.models", "django.contrib.postgres")
"""Modules of placeholders that only name a value's type. Columns of a row from JSON have their types
anyway."""
VALIDATION = ("clean_fields", "cached_clean_fields", "deferred_clean_fields")


def once_per_model(find: Callable[[type[SyncableModel]], Found]) -> Callable[[type[SyncableModel]], Found]:
    """Remember a function's result for each model. There are as many as models in the code."""
    found: dict[type[SyncableModel], Found] = {}

    @wraps(find)
    def remembering(model: type[SyncableModel]) -> Found:
        if model not in found:
            found[model] = find(model)
        return found[model]

    return remembering


@once_per_model
def traits_of(model: type[SyncableModel]) -> Traits:
    fields = tuple(model._meta.concrete_fields)
    foreign_keys = tuple(field for field in fields if isinstance(field, ForeignKey))
    return Traits(
        model=model,
        fields=fields,
        foreign_keys=foreign_keys,
        overrides_save=overrides(model, *SAVING),
        overrides_deserialize=overrides(model, "deserialize", "__init__"),
        overrides_clean_fields=overrides(model, *VALIDATION),
        own_sql=any(map(has_own_sql, fields)),
        spans_tables=any(not parent._meta.abstract for parent in model._meta.concrete_model._meta.parents),
        tree_key=next((key for key in foreign_keys if key.attname == self_referential_fk(model)), None),
    )


@once_per_model
def tables_of(model: type[SyncableModel]) -> frozenset[str]:
    """Return the names of the tables that a record of the model has rows in."""
    concrete = model._meta.concrete_model
    return frozenset(table._meta.db_table for table in (concrete, *concrete._meta.get_parent_list()))


def has_own_sql(field: Field[Any, Any]) -> bool:
    """Return True if the field has the database compute the column from the value."""
    placeholder = getattr(field, "get_placeholder", None)
    return placeholder is not None and not placeholder.__module__.startswith(_PLAIN_PLACEHOLDERS)


def target_model(field: ForeignKey[Any, Any]) -> type[Model]:
    """Return the model that a foreign key refers to, as declared: possibly a proxy."""
    return cast(type[Model], field.related_model)


def overrides(model: type[Model], *names: str) -> bool:
    """Return True if the model overrides any of these methods of Morango's."""
    return any(_function(model, name) is not _function(SyncableModel, name) for name in names)


def _function(model: type[Model], name: str) -> Any:
    method = getattr(model, name)
    return getattr(method, "__func__", method)
