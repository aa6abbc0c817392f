"""Column values of instances, as saving would make them."""

from __future__ import annotations

import datetime
from collections.abc import Sequence
from typing import Any

from django.db import connection, models
from django.db.models import Field, Model
from morango.models.core import SyncableModel
from morango.models.fields.uuids import UUIDField

from morango_celery.deserialization.conversions import is_uuid
from morango_celery.deserialization.traits import once_per_model, traits_of
from morango_celery.reading.attributes import class_like, is_plain_attribute

_PLAIN_TYPES: dict[type[Any], type[Any]] = {
    models.CharField: str,
    models.TextField: str,
    models.BooleanField: bool,
    models.IntegerField: int,
    models.BigIntegerField: int,
    models.SmallIntegerField: int,
    models.PositiveIntegerField: int,
    models.PositiveBigIntegerField: int,
    models.PositiveSmallIntegerField: int,
    models.FloatField: float,
}
_ABSENT = object()


def database_values(app_model: SyncableModel, fields: Sequence[Field[Any, Any]]) -> list[Any]:
    """Return the values of `fields` as the database's driver takes them."""
    plain = _plain_types(type(app_model))
    attributes = app_model.__dict__
    values = []
    for field in fields:
        kind = plain.get(field.attname)
        value = attributes.get(field.attname, _ABSENT)
        if kind is None or (
            value is not None and not (is_uuid(value) if kind is UUIDField else type(value) is kind)
        ):
            value = field.get_db_prep_save(value_to_save(app_model, field), connection)
        values.append(value)
    return values


@once_per_model
def _plain_types(model: type[SyncableModel]) -> dict[str, type[Any]]:
    """Return the types of attributes that the driver takes as they are, by field; `UUIDField` for an id."""
    plain = {}
    for field in traits_of(model).fields:
        simple = class_like(type(field), (models.ForeignKey, models.OneToOneField)) is not None
        value_field = field.target_field if simple and isinstance(field, models.ForeignKey) else field
        kind = UUIDField if type(value_field) is UUIDField else _PLAIN_TYPES.get(type(field))
        if kind is not None and is_plain_attribute(model, field):
            plain[field.attname] = kind
    return plain


def require_readable(value: object) -> None:
    """Refuse a time that PostgreSQL would store, and that no reader of the row could read back.

    :raises OverflowError: it is such a time
    """
    if isinstance(value, datetime.datetime) and value.tzinfo is not None:
        value.astimezone(datetime.UTC)


def value_to_save(app_model: Model, field: Field[Any, Any]) -> Any:
    """Return the value that saving would write, except that the local clock never replaces a synced value.

    :raises OverflowError: see `require_readable`
    """
    value = getattr(app_model, field.attname)
    require_readable(value)
    if getattr(field, "auto_now", False) and value not in field.empty_values:
        return value
    if getattr(field, "auto_now_add", False) and value is not None:
        return value
    return field.pre_save(app_model, app_model._state.adding)
