"""What a model's code overrides, and so how its records have to be handled. Found once per class."""

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
from morango_celery.upstream import self_referential_fk

Found = TypeVar("Found")


class WriteStrategy(enum.Enum):
    """How records of a model are written."""

    BULK = "bulk"
    """The save chain is Morango's own: field values go straight into one upsert."""

    CAPTURED_SAVE = "captured save"
    """The model's own ``save()`` runs; the row it would write joins one upsert."""

    INDIVIDUAL = "individual"
    """``save()`` writes each record in a savepoint of its own."""


@dataclass(frozen=True)
class Traits:
    model: type[SyncableModel]
    fields: tuple[Field[Any, Any], ...]
    """The concrete fields, in the order of the table's columns."""
    foreign_keys: tuple[ForeignKey[Any, Any], ...]
    overrides_save: bool
    overrides_deserialize: bool
    overrides_clean_fields: bool
    own_sql: bool
    """Whether what is written of a field depends on SQL of its own, and not on its value alone."""
    spans_tables: bool
    tree_key: ForeignKey[Any, Any] | None
    """The foreign key to the parent record, of models that Morango deserializes as a tree."""

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
        """Whether its records are saved one by one, by no two batches at a time."""
        return is_exclusive(self.model)

    @property
    def may_look_early(self) -> bool:
        """Return True if code of a tree's model runs before the parent is written, and might look at it."""
        return self.in_tree and (self.overrides_deserialize or self.overrides_clean_fields)

    @property
    def follows_relations(self) -> bool:
        """Whether code of the model might follow its foreign keys: it finds instances then."""
        return self.overrides_save or self.overrides_deserialize or self.overrides_clean_fields


SAVING = ("save", "save_base", "_save_table", "_save_parents", "_do_update", "_do_insert")
_PLAIN_PLACEHOLDERS = ("django.db.models", "django.contrib.postgres")
"""Modules whose placeholders only name a value's type, which the columns of a row from JSON have anyway."""
_VALIDATION = ("clean_fields", "cached_clean_fields", "deferred_clean_fields")


def once_per_model(find: Callable[[type[SyncableModel]], Found]) -> Callable[[type[SyncableModel]], Found]:
    """Remember what a function finds for each model; there are as many as the code has."""
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
        overrides_clean_fields=overrides(model, *_VALIDATION),
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
    """Return True if the field has the database make a column's value of what it is given."""
    placeholder = getattr(field, "get_placeholder", None)
    return placeholder is not None and not placeholder.__module__.startswith(_PLAIN_PLACEHOLDERS)


def target_model(field: ForeignKey[Any, Any]) -> type[Model]:
    """The model that a foreign key refers to, as declared: possibly a proxy."""
    return cast(type[Model], field.related_model)


def overrides(model: type[Model], *names: str) -> bool:
    """Whether the model has methods of its own for one of these of Morango's."""
    return any(_function(model, name) is not _function(SyncableModel, name) for name in names)


def _function(model: type[Model], name: str) -> Any:
    method = getattr(model, name)
    return getattr(method, "__func__", method)
