"""Attributes of models: whether an instance holds the very values that it was given."""

from __future__ import annotations

from collections.abc import Iterable
from inspect import getattr_static
from typing import Any

from django.db.models import Field, Model
from django.db.models.fields.related_descriptors import ForeignKeyDeferredAttribute
from django.db.models.query_utils import DeferredAttribute

_ACCESS = ("__new__", "__init__", "__setattr__", "__getattribute__")


def has_plain_access(model: type[Model]) -> bool:
    """Return True if no code of the model's own runs when attributes are set and read."""
    return all(getattr(model, name) is getattr(Model, name) for name in _ACCESS)


def is_plain_attribute(model: type[Model], field: Field[Any, Any]) -> bool:
    """Return True if the field's value is the entry in an instance's ``__dict__``."""
    return type(getattr_static(model, field.attname)) in (DeferredAttribute, ForeignKeyDeferredAttribute)


def is_overshadowed(model: type[Model], field: Field[Any, Any]) -> bool:
    """Return True if a property has the field's place: Django leaves a base class's attribute of that name
    alone."""
    own: Any = field  # the stubs don't know its descriptor
    return not isinstance(getattr_static(model, field.attname), own.descriptor_class)


def keeps_values(model: type[Model]) -> bool:
    """Return True if an instance holds the very values that it was given for its columns."""
    fields: Iterable[Field[Any, Any]] = model._meta.concrete_fields  # type: ignore[attr-defined]  # Django's own
    return has_plain_access(model) and all(is_plain_attribute(model, field) for field in fields)
