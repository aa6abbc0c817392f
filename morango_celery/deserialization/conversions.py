"""Converters from JSON values to column values, for values that need no more than a look.

They raise `NotFastPath` for every other value, valid or not. Django's own code decides then, and words the
error.
"""

from __future__ import annotations

import datetime
import math
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, TypeAlias, cast

from django.conf import settings
from django.core.validators import (
    MaxLengthValidator,
    MaxValueValidator,
    MinLengthValidator,
    MinValueValidator,
)
from django.db import connection, models
from morango.models.fields.uuids import UUIDField

from morango_celery.db.dialect import dialect
from morango_celery.deserialization.equivalent import field_equivalent, field_mismatch
from morango_celery.deserialization.reasons import Kind, Reason
from morango_celery.django_compat import UTC
from morango_celery.equivalents import Convert, NotFastPath, declared_for_field
from morango_celery.reading.attributes import class_like
from morango_celery.reading.definitions import definition_of

AnyField: TypeAlias = "models.Field[Any, Any]"

_NO_HEX_DIGITS = str.maketrans("", "", "0123456789abcdef")
_DATETIME = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d{3}|\.\d{6})?Z", re.ASCII)
"""Forms that DjangoJSONEncoder writes; others are for Django's own parser."""
_DATE = re.compile(r"\d{4}-\d\d-\d\d", re.ASCII)
_DASHED_UUID = re.compile(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}")


def conversion(field: AnyField) -> Convert | None:
    """Return the converter of one field; None when only the field's own code can tell."""
    found = converter(field)
    return None if isinstance(found, Reason) else found


def converter(field: AnyField) -> Convert | Reason:
    """Return the converter of one field, or the reason why only the field's own code can tell."""
    found = _converter(field)
    if isinstance(found, Reason):
        return found
    if not isinstance(field.choices, list | tuple | None):  # a function makes them, since Django 5.0
        return _reason(Kind.FIELD, field, f"{field.name}: its choices may be others each time")
    return _with_choices(field, _nullable(field, found))


def plain_class_of(kind: type[Any]) -> type[Any] | None:
    """Return the class with a converter that a class of fields derives from; None if there is none."""
    return next((each for each in kind.__mro__ if each in _CONVERTERS or each in _REFERENCES), None)


_REFERENCES = (models.ForeignKey, models.OneToOneField)


def _converter(field: AnyField) -> Convert | Reason:
    kind = type(field)
    if (equivalent := field_equivalent(kind)) is not None:
        said = f"{field.name}: the equivalent of {kind.__name__} leaves this field to its own code"
        return equivalent.convert(field) or _reason(Kind.FIELD_EQUIVALENT, field, said)
    if getattr(field, "morango_serialize_to_string", False):
        return _without_equivalent(
            field, f"{kind.__name__} makes a text of its values (morango_serialize_to_string)"
        )
    if (plain := class_like(kind, (*_CONVERTERS, *_REFERENCES))) in _REFERENCES:
        return _reference(cast("models.ForeignKey[Any, Any]", field))
    if plain is not None:
        return _CONVERTERS[plain](field)
    return _without_equivalent(field, f"fields of class {kind.__name__} have no fast path")


def _reference(field: models.ForeignKey[Any, Any]) -> Convert | Reason:
    if type(field.target_field) is not UUIDField:
        target = f"{field.target_field.model._meta.label}.{field.target_field.name}"
        said = f"{field.name}: it refers to {target}, which is no id of Morango's"
        return _reason(Kind.REFERENCE, field, said)
    return _exact_uuids


def _without_equivalent(field: AnyField, why_needed: str) -> Reason:
    """Return the reason for a field with code of its own that no equivalent stands for."""
    kind = type(field)
    if declared_for_field(kind) is None:
        return _reason(Kind.FIELD, field, f"{field.name}: {why_needed}")
    mismatch = field_mismatch(kind)
    why = mismatch.text if mismatch else "USE_EQUIVALENTS is False"
    said = f"{field.name}: the equivalent of {kind.__name__} isn't used: {why}"
    code = mismatch.code if mismatch else (definition_of(kind),)
    return Reason(Kind.FIELD_EQUIVALENT if mismatch else Kind.EQUIVALENTS_OFF, said, code, field.name)


def _validated(field: AnyField, *limits: type[Any]) -> Reason:
    """Return the reason for a field with validators that no converter stands for.

    :param limits: classes of validators that one may stand for
    """
    unfit = _other_than_limits(field, *limits) or field.validators
    code = tuple(dict.fromkeys(map(definition_of, unfit)))
    names = ", ".join(each.name for each in code)
    said = f"{field.name}: its validators check something else than a fixed length or range ({names})"
    return Reason(Kind.VALIDATORS, said, code, field.name)


def _reason(kind: Kind, field: AnyField, said: str) -> Reason:
    return Reason(kind, said, (definition_of(type(field)),), field.name)


def _nullable(field: AnyField, convert: Convert) -> Convert:
    """Django skips the checks of an empty value where blank is allowed; only null is plain then."""
    allowed = field.null and field.blank and not getattr(field, "auto_now", False)
    allowed = allowed and not getattr(field, "auto_now_add", False)

    def nullable(values: Sequence[Any]) -> Sequence[Any]:
        if None not in values:
            return convert(values)
        if not allowed:
            raise NotFastPath
        present = [value for value in values if value is not None]
        converted = iter(convert(present) if present else ())
        return [None if value is None else next(converted) for value in values]

    return nullable


def _with_choices(field: AnyField, convert: Convert) -> Convert:
    if field.choices is None:
        return convert
    chosen = {value for value, _ in field.flatchoices} | {None}

    def some_of(values: Sequence[Any]) -> Sequence[Any]:
        converted = convert(values)
        if not chosen.issuperset(converted):
            raise NotFastPath
        return converted

    return some_of


def _require_type(values: Sequence[Any], kind: type) -> None:
    if set(map(type, values)) != {kind}:
        raise NotFastPath


def _text(field: AnyField) -> Convert | Reason:
    limits = _length_limits(field)
    if limits is None:
        return _validated(field, MinLengthValidator, MaxLengthValidator)
    shortest, longest = limits
    blank = field.blank

    def texts(values: Sequence[Any]) -> Sequence[Any]:
        _require_type(values, str)
        if "\x00" in "".join(values) or (not blank and "" in values):
            raise NotFastPath
        lengths = list(map(len, values))
        if max(lengths) > longest or min(lengths) < shortest:
            raise NotFastPath
        return values

    return texts


def is_uuid(value: Any) -> bool:
    """Return True if the value is an id as Morango writes them: 32 lower case hexadecimal digits."""
    return type(value) is str and len(value) == 32 and not value.translate(_NO_HEX_DIGITS)


def _exact_uuids(values: Sequence[Any]) -> Sequence[Any]:
    _require_type(values, str)
    if set(map(len, values)) != {32} or "".join(values).translate(_NO_HEX_DIGITS):
        raise NotFastPath
    return values


def _length_limits(field: AnyField) -> tuple[float, float] | None:
    """Return the least and the greatest length that the field's validators allow; None if they check anything
    else."""
    return _limits(field, MinLengthValidator, MaxLengthValidator, 0)


def _uuid(field: AnyField) -> Convert | Reason:
    limits = _length_limits(field)
    if limits is not None and limits[0] <= 32 <= limits[1]:
        return _exact_uuids
    return _validated(field, MinLengthValidator, MaxLengthValidator)


def _boolean(field: AnyField) -> Convert | Reason:
    if field.validators:
        return _validated(field)

    def booleans(values: Sequence[Any]) -> Sequence[Any]:
        _require_type(values, bool)
        return values

    return booleans


def _integer(field: AnyField) -> Convert | Reason:
    bounds = _bounds(field)
    if bounds is None:
        return _validated(field, MinValueValidator, MaxValueValidator)
    low, high = bounds

    def integers(values: Sequence[Any]) -> Sequence[Any]:
        _require_type(values, int)
        if not (low <= min(values) and max(values) <= high):
            raise NotFastPath
        return values

    return integers


def _float(field: AnyField) -> Convert | Reason:
    bounds = _bounds(field)
    if bounds is None:
        return _validated(field, MinValueValidator, MaxValueValidator)
    low, high = max(bounds[0], -1e308), min(bounds[1], 1e308)

    def floats(values: Sequence[Any]) -> Sequence[Any]:
        kinds = set(map(type, values))
        if not kinds <= {float, int}:
            raise NotFastPath
        try:
            finite = all(map(math.isfinite, values))
        except OverflowError:
            raise NotFastPath from None
        if not (finite and low <= min(values) and max(values) <= high):
            raise NotFastPath
        if int not in kinds:
            return values
        return list(map(float, values))

    return floats


def _bounds(field: AnyField) -> tuple[float, float] | None:
    """Return the range that the field's validators allow; None if they check anything else."""
    return _limits(field, MinValueValidator, MaxValueValidator, -math.inf)


def _limits(field: AnyField, least: type[Any], greatest: type[Any], low: float) -> tuple[float, float] | None:
    """Return the range that validators of two classes allow; None if the field has others.

    :param low: the lower end if no validator says one
    """
    if _other_than_limits(field, least, greatest):
        return None
    high = math.inf
    for validator in field.validators:
        limit: Any = getattr(validator, "limit_value", None)
        if type(validator) is least:
            low = max(low, limit)
        else:
            high = min(high, limit)
    return low, high


def _other_than_limits(field: AnyField, *limits: type[Any]) -> list[Any]:
    """Return the validators that are of other classes, or have no fixed number as their limit."""
    return [
        validator
        for validator in field.validators
        if type(validator) not in limits
        or callable(limit := getattr(validator, "limit_value", None))
        or not isinstance(limit, int | float)
    ]


def _dashed_uuid(field: AnyField) -> Convert | Reason:
    if field.validators:
        return _validated(field)
    form, has_type = _DASHED_UUID, connection.features.has_native_uuid_field

    def uuids(values: Sequence[Any]) -> Sequence[Any]:
        _require_type(values, str)
        if not all(map(form.fullmatch, values)):
            raise NotFastPath
        return values if has_type else [value.replace("-", "") for value in values]

    return uuids


def _datetime(field: AnyField) -> Convert | Reason:
    if not settings.USE_TZ:
        return _reason(Kind.NO_TIME_ZONES, field, f"{field.name}: USE_TZ is False, so its times have no zone")
    if field.validators:
        return _validated(field)
    adapt = connection.ops.adapt_datetimefield_value
    if not dialect().stores_text or connection.timezone is not UTC:
        return _parsed(_DATETIME, datetime.datetime.fromisoformat, adapt)

    def as_text(text: str) -> Any:
        moment = datetime.datetime.fromisoformat(text)
        # SQLite keeps the text with another punctuation; a fraction of 0 is left out
        return f"{text[:10]} {text[11:26]}" if len(text) == 27 and moment.microsecond else adapt(moment)

    return _parsed(_DATETIME, as_text)


def _date(field: AnyField) -> Convert | Reason:
    if field.validators:
        return _validated(field)
    return _parsed(_DATE, datetime.date.fromisoformat, connection.ops.adapt_datefield_value)


def _parsed(form: re.Pattern[str], *steps: Callable[[Any], Any]) -> Convert:
    """Return a converter that takes texts of a form through one step after another."""

    def parsed(values: Sequence[Any]) -> Sequence[Any]:
        _require_type(values, str)
        if not all(map(form.fullmatch, values)):
            raise NotFastPath
        results: Iterable[Any] = values
        for step in steps:
            results = map(step, results)
        try:
            return list(results)
        except ValueError:
            raise NotFastPath from None

    return parsed


_CONVERTERS: Mapping[type[Any], Callable[[AnyField], Convert | Reason]] = {
    models.CharField: _text,
    models.TextField: _text,
    UUIDField: _uuid,
    models.UUIDField: _dashed_uuid,
    models.BooleanField: _boolean,
    models.FloatField: _float,
    models.IntegerField: _integer,
    models.BigIntegerField: _integer,
    models.SmallIntegerField: _integer,
    models.PositiveIntegerField: _integer,
    models.PositiveBigIntegerField: _integer,
    models.PositiveSmallIntegerField: _integer,
    models.DateTimeField: _datetime,
    models.DateField: _date,
}
