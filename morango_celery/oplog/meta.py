"""Typed access to Django's metadata of models, for which the stubs have gaps."""

from __future__ import annotations

from collections.abc import Iterable
from contextlib import suppress
from typing import Any, TypeAlias, cast

from django.apps import apps
from django.db import DEFAULT_DB_ALIAS, connection
from django.db.models import Field, ManyToManyField, Model, QuerySet

AnyField: TypeAlias = "Field[Any, Any]"
AnyRelation: TypeAlias = "ManyToManyField[Any, Any]"
Key: TypeAlias = tuple[type[Model], Any]
"""Identity of an object: its concrete model, and its primary key as the driver takes it."""

MAX_KEYS = 10_000
"""Number of keys in one statement."""


def concrete(model: type[Model]) -> type[Model]:
    """Return the model itself, or the one that it is a proxy of."""
    return cast("type[Model]", model._meta.concrete_model)


def key_field(model: type[Model]) -> AnyField:
    return cast("AnyField", concrete(model)._meta.pk)


def key_value(model: type[Model], pk: Any) -> Any:
    """Return a primary key as the driver takes it."""
    return key_field(model).get_db_prep_save(pk, connection)


def key_of(model: type[Model], pk: Any) -> Key:
    return concrete(model), key_value(model, pk)


def own_fields(model: type[Model]) -> tuple[AnyField, ...]:
    """Return the columns of the model's own table, without those of its parents."""
    meta: Any = concrete(model)._meta
    return tuple(meta.local_concrete_fields)


def all_fields(model: type[Model]) -> tuple[AnyField, ...]:
    """Return the columns of the model's table and of its parents' tables."""
    meta: Any = model._meta
    return tuple(meta.concrete_fields)


def named(labels: Iterable[str]) -> set[type[Model]]:
    """Return the concrete models of these labels, and their parents with tables of their own.

    A label without an installed model is left out; a system check reports it.
    """
    found = set()
    for label in labels:
        with suppress(LookupError, ValueError):
            model = concrete(apps.get_model(label))
            found |= {model, *model._meta.get_parent_list()}
    return found


def rows(model: type[Model]) -> QuerySet[Any]:
    """Return all rows, those that the model's managers hide included."""
    queryset: Any = QuerySet
    return cast("QuerySet[Any]", queryset(model, using=DEFAULT_DB_ALIAS))
