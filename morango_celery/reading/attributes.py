"""Attributes of models and of fields: whether an instance holds the very values that it was given."""

from __future__ import annotations

from collections.abc import Collection, Iterable
from inspect import getattr_static
from typing import Any

from django.db.models import Field, Model
from django.db.models.fields.related_descriptors import ForeignKeyDeferredAttribute
from django.db.models.query_utils import DeferredAttribute

from morango_celery.reading.definitions import Definition, overriding

_ACCESS = ("__new__", "__init__", "__setattr__", "__getattribute__")


def own_access(model: type[Model]) -> tuple[Definition, ...]:
    """Return the model's own code that runs when an instance is made, or attributes are set or read."""
    return overriding(model, Model, *_ACCESS)


def has_plain_access(model: type[Model]) -> bool:
    """Return True if no code of the model's own runs when attributes are set and read."""
    return not own_access(model)


def is_plain_attribute(model: type[Model], field: Field[Any, Any]) -> bool:
    """Return True if the field's value is the entry in an instance's ``__dict__``."""
    return type(getattr_static(model, field.attname)) in (DeferredAttribute, ForeignKeyDeferredAttribute)


def is_overshadowed(model: type[Model], field: Field[Any, Any]) -> bool:
    """Return True if a property has the field's place: set afterwards, or by a base class, whose attribute of
    that name Django 3.2 leaves alone."""
    own: Any = field  # the stubs don't know its descriptor
    return not isinstance(getattr_static(model, field.attname), own.descriptor_class)


def replaced_attributes(model: type[Model]) -> list[str]:
    """Return the columns whose values are held by something else than an instance's ``__dict__``."""
    fields: Iterable[Field[Any, Any]] = model._meta.concrete_fields  # type: ignore[attr-defined]  # Django's own
    return [field.attname for field in fields if not is_plain_attribute(model, field)]


_OF_NO_VALUE = frozenset(
    {"formfield", "deconstruct", "description"}
    | {"__module__", "__qualname__", "__doc__", "__annotations__", "__parameters__", "__orig_bases__"}
    | {"__static_attributes__", "__firstlineno__"}
)
"""Attributes of classes of fields for forms, migrations and readers. No value depends on them."""


def class_like(kind: type[Any], plain: Collection[type[Any]]) -> type[Any] | None:
    """Return the class of fields that another treats values like, as django-mptt's foreign keys do Django's.

    :param kind: one of `plain`, or derived from one
    :returns: None if attributes of its own, or of a mixin, might treat them otherwise
    """
    base = next((each for each in kind.__mro__ if each in plain), None)
    own = (each for each in kind.__mro__ if base is not None and each not in base.__mro__)
    return base if all(_OF_NO_VALUE.issuperset(vars(each)) for each in own) else None
