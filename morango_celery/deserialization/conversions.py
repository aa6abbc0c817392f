"""Converters from JSON values to column values, for values that need no more than a look.

They raise `NotFastPath` for every other value, valid or not. Django's own code decides then, and words the
error.
"""

from __future__ import annotations

import datetime
import math
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, TypeAlias

from django.conf import settings
from django.core.validators import (
    MaxLengthValidator,
    MaxValueValidator,
    MinLengthValidator,
    MinValueValidator,
)
from django.db import connection, models
from django.utils import timezone
from morango.models.fields.uuids import UUIDField

from morango_celery.db.dialect import dialect
from morango_celery.deserialization.equivalent import field_equivalent
from morango_celery.equivalents import Convert, NotFastPath

AnyField: TypeAlias = "models.Field[Any, Any]"

_NO_HEX_DIGITS = str.maketrans("", "", "0123456789abcdef")
_DATETIME = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d{3}|\.\d{6})?Z", re.ASCII)
"""Forms that DjangoJSONEncoder writes; others are for Django's own parser."""
_DATE = re.compile(r"\d{4}-\d\d-\d\d", re.ASCII)
_DASHED_UUID = re.compile(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}")


def conversion(field: AnyField) -> Convert | None:
    """Return the converter of one field; None when only the field's own code can tell."""
    convert: Convert | None
    if (equivalent := field_equivalent(type(field))) is not None:
        convert = equivalent.convert(field)
    elif getattr(field, "morango_serialize_to_string", False):
        return None
    elif isinstance(field, models.ForeignKey):
        simple = type(field) in (models.ForeignKey, models.OneToOneField)
        convert = _exact_uuids if simple and type(field.target_field) is UUIDField else None
    else:
        maker = _CONVERTERS.get(type(field))
        convert = maker(field) if maker is not None else None
    if convert is None:
        return None
    return _with_choices(field, _nullable(field, convert))


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


def _text(field: AnyField) -> Convert | None:
    limits = _length_limits(field)
    if limits is None:
        return None
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


def _uuid(field: AnyField) -> Convert | None:
    limits = _length_limits(field)
    return _exact_uuids if limits is not None and limits[0] <= 32 <= limits[1] else None


def _boolean(field: AnyField) -> Convert | None:
    if field.validators:
        return None

    def booleans(values: Sequence[Any]) -> Sequence[Any]:
        _require_type(values, bool)
        return values

    return booleans


def _integer(field: AnyField) -> Convert | None:
    bounds = _bounds(field)
    if bounds is None:
        return None
    low, high = bounds

    def integers(values: Sequence[Any]) -> Sequence[Any]:
        _require_type(values, int)
        if not (low <= min(values) and max(values) <= high):
            raise NotFastPath
        return values

    return integers


def _float(field: AnyField) -> Convert | None:
    bounds = _bounds(field)
    if bounds is None:
        return None
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
    high = math.inf
    for validator in field.validators:
        limit = getattr(validator, "limit_value", None)
        if callable(limit) or not isinstance(limit, int | float):
            return None
        if type(validator) is least:
            low = max(low, limit)
        elif type(validator) is greatest:
            high = min(high, limit)
        else:
            return None
    return low, high


def _dashed_uuid(field: AnyField) -> Convert | None:
    if field.validators:
        return None
    form, has_type = _DASHED_UUID, connection.features.has_native_uuid_field

    def uuids(values: Sequence[Any]) -> Sequence[Any]:
        _require_type(values, str)
        if not all(map(form.fullmatch, values)):
            raise NotFastPath
        return values if has_type else [value.replace("-", "") for value in values]

    return uuids


def _datetime(field: AnyField) -> Convert | None:
    if field.validators or not settings.USE_TZ:
        return None
    adapt = connection.ops.adapt_datetimefield_value
    if not dialect().stores_text or connection.timezone is not timezone.utc:
        return _parsed(_DATETIME, datetime.datetime.fromisoformat, adapt)

    def as_text(text: str) -> Any:
        moment = datetime.datetime.fromisoformat(text)
        # SQLite keeps the text with another punctuation; a fraction of 0 is left out
        return f"{text[:10]} {text[11:26]}" if len(text) == 27 and moment.microsecond else adapt(moment)

    return _parsed(_DATETIME, as_text)


def _date(field: AnyField) -> Convert | None:
    if field.validators:
        return None
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


_CONVERTERS: Mapping[type[Any], Callable[[AnyField], Convert | None]] = {
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
