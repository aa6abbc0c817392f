"""Traits of models: the methods that their code overrides, and so the way to handle their records."""

from __future__ import annotations

import enum
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property, wraps
from typing import Any, TypeVar, cast

from django.db.models import Field, ForeignKey, Model
from morango.models.core import SyncableModel

from morango_celery.conf import settings
from morango_celery.deserialization.exclusive import exclusive_reasons, is_exclusive
from morango_celery.deserialization.reasons import Kind, Reason
from morango_celery.django_compat import SAVING, is_generated
from morango_celery.reading.definitions import (
    Definition,
    attribute_of,
    definition_of,
    is_overridden,
    overriding,
)
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
    """Concrete fields that are written, in the order of the table's columns."""
    foreign_keys: tuple[ForeignKey[Any, Any], ...]
    save_code: tuple[Definition, ...]
    """Code of the model's own that a ``save()`` runs."""
    deserialize_code: tuple[Definition, ...]
    clean_fields_code: tuple[Definition, ...]
    with_own_sql: tuple[Field[Any, Any], ...]
    """Fields with SQL of their own, so that the column isn't the value alone."""
    parent_tables: tuple[type[Model], ...]
    """Models of further tables that a record has rows in."""
    tree_key: ForeignKey[Any, Any] | None
    """Foreign key to the parent record, of models that Morango deserializes as a tree."""

    @property
    def in_tree(self) -> bool:
        return self.tree_key is not None

    @cached_property
    def overrides_save(self) -> bool:
        return bool(self.save_code)

    @cached_property
    def overrides_deserialize(self) -> bool:
        return bool(self.deserialize_code)

    @cached_property
    def overrides_clean_fields(self) -> bool:
        return bool(self.clean_fields_code)

    @property
    def write_strategy(self) -> WriteStrategy:
        if self.individual_reasons:
            return WriteStrategy.INDIVIDUAL
        return WriteStrategy.CAPTURED_SAVE if self.overrides_save else WriteStrategy.BULK

    @property
    def individual_reasons(self) -> tuple[Reason, ...]:
        """Return the reasons why each record is saved in a savepoint of its own; none if they are written
        together."""
        label = self.model._meta.label
        if label in settings.SAVE_INDIVIDUALLY:
            named = Reason(
                Kind.SAVED_INDIVIDUALLY, f"SAVE_INDIVIDUALLY names {label}", subject="SAVE_INDIVIDUALLY"
            )
            return (*self._individual_by_class, named, *exclusive_reasons(self.model))
        return self._individual_by_class + exclusive_reasons(self.model)

    @cached_property
    def _individual_by_class(self) -> tuple[Reason, ...]:
        spanning = [
            Reason(
                Kind.TABLES,
                f"its rows span the table of {parent._meta.label} too",
                (definition_of(parent),),
                parent._meta.label,
            )
            for parent in self.parent_tables
        ]
        computed = [
            Reason(
                Kind.COMPUTED_COLUMN,
                f"the database computes the column of {field.name} by the field's own SQL",
                (attribute_of(type(field), "get_placeholder"),),
                field.name,
            )
            for field in self.with_own_sql
        ]
        return (*spanning, *computed)

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
PARSING = ("deserialize", "__init__")
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
    fields = tuple(field for field in model._meta.concrete_fields if not is_generated(field))
    foreign_keys = tuple(field for field in fields if isinstance(field, ForeignKey))
    return Traits(
        model=model,
        fields=fields,
        foreign_keys=foreign_keys,
        save_code=own_code(model, *SAVING),
        deserialize_code=own_code(model, *PARSING),
        clean_fields_code=own_code(model, *VALIDATION),
        with_own_sql=tuple(filter(has_own_sql, fields)),
        parent_tables=tuple(
            parent for parent in model._meta.concrete_model._meta.parents if not parent._meta.abstract
        ),
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


def own_code(model: type[Model], *names: str) -> tuple[Definition, ...]:
    """Return the code of a model's own among these methods of Morango's, what overrides first."""
    return overriding(model, SyncableModel, *names)


def overrides(model: type[Model], *names: str) -> bool:
    """Return True if a model has any `own_code`, as it is now."""
    return is_overridden(model, SyncableModel, *names)
