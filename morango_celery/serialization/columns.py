"""Columns of app rows in the form that costs least to read.

A UUID object that is turned into text at once, or a time that is parsed by a regular expression, takes
longer than everything else about a row.
"""

from __future__ import annotations

import datetime
from collections.abc import Sequence
from typing import Any, cast

from django.conf import settings
from django.db import connection
from django.db.models import (
    BooleanField,
    DateTimeField,
    Field,
    ForeignKey,
    Func,
    OneToOneField,
    TextField,
    Value,
)
from django.db.models.expressions import Combinable
from django.db.models.functions import Cast, Replace
from django.utils.dateparse import parse_datetime
from morango.models.fields.uuids import UUIDField

from morango_celery.db.dialect import dialect
from morango_celery.django_compat import UTC
from morango_celery.reading.attributes import class_like
from morango_celery.reading.sizes import THIN_BYTES, bytes_of, is_unbounded


def selected(field: Field[Any, Any], *, however_large: bool = False) -> str | Combinable:
    """Return the column or expression that gives the field's value soonest.

    :param however_large: if not, PostgreSQL reads NULL in place of a large value
    """
    target = field.target_field if isinstance(field, ForeignKey) else field
    is_plain = class_like(type(field), (UUIDField, ForeignKey, OneToOneField)) is not None
    if type(target) is UUIDField and is_plain:
        return _aside(_id_as_text(field.attname))
    if type(field) is DateTimeField and dialect().stores_text and settings.USE_TZ:
        return _aside(Cast(field.attname, _StoredTime()))
    if not however_large and not dialect().runs_in_process and is_unbounded(field):
        return _aside(_Thin(field.attname, measured=field, output_field=field))
    return field.attname


def has_large(fields: Sequence[Field[Any, Any]]) -> Combinable | None:
    """Return the condition that a row holds a value which `selected` leaves out for its size, if any may."""
    unbounded = [field for field in fields if is_unbounded(field)]
    if not unbounded or dialect().runs_in_process:
        return None
    return _aside(_AnyLarge(*(field.attname for field in unbounded), measured=unbounded))


class _Thin(Func):
    """Value, or NULL if it is large."""

    def __init__(self, name: str, *, measured: Field[Any, Any], **options: Any) -> None:
        super().__init__(name, **options)
        self.measured = measured

    def as_postgresql(self, compiler: Any, connection: Any, **context: Any) -> Any:
        (column,), _ = zip(*(compiler.compile(each) for each in self.source_expressions), strict=True)
        return f"CASE WHEN {bytes_of(column, self.measured)} <= {THIN_BYTES} THEN {column} END", []


class _AnyLarge(Func):
    """Condition that any of some values is large."""

    output_field = BooleanField()

    def __init__(self, *names: str, measured: Sequence[Field[Any, Any]], **options: Any) -> None:
        super().__init__(*names, **options)
        self.measured = measured

    def as_postgresql(self, compiler: Any, connection: Any, **context: Any) -> Any:
        columns = [compiler.compile(each)[0] for each in self.source_expressions]
        sizes = [bytes_of(*each) for each in zip(columns, self.measured, strict=True)]
        return f"GREATEST({', '.join(sizes)}) > {THIN_BYTES}", []


def _aside(expression: Any) -> Combinable:
    """Give an expression a name that no field may have: Django's own, such as ``cast1``, one might."""
    expression.default_alias = "read__"
    return cast("Combinable", expression)


def _id_as_text(name: str) -> Combinable:
    """Return the id as 32 hex digits, as Morango's field makes them."""
    text = Cast(name, TextField())
    if dialect().stores_text:
        return text
    return Replace(text, Value("-", TextField()), Value("", TextField()), output_field=TextField())


class _StoredTime(TextField):  # type: ignore[type-arg]
    """Time in SQLite, which has it as text."""

    def from_db_value(self, value: Any, expression: Any, _: Any) -> Any:
        """Return Django's value for the text, in a tenth of the time if it has the form that Django
        writes."""
        if (
            isinstance(value, str)
            and value[4:17:3] == "-- ::"
            and value[19:20] in ("", ".")  # no offset
            and len(value) in (19, 26)
            and connection.timezone is UTC
        ):
            try:
                return datetime.datetime.fromisoformat(value).replace(tzinfo=UTC)
            except ValueError:
                pass  # Django has an error of its own
        if isinstance(value, str):
            value = parse_datetime(value)  # None if it is no time, as where the column isn't cast
        convert: Any = connection.ops.convert_datetimefield_value  # type: ignore[attr-defined]  # SQLite's
        return convert(value, expression, connection)
