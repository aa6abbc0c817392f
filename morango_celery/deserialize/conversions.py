"""From JSON values to column values, field by field, where nothing can be said against it.

For every other value, valid or not, there is `Unsure`: Django's own way decides, and words the error.
"""

from __future__ import annotations

import datetime
import math
from collections.abc import Callable, Mapping
from typing import Any, TypeAlias

from django.conf import settings
from django.core.validators import MaxLengthValidator, MaxValueValidator, MinValueValidator
from django.db import connection, models
from morango.models.fields.uuids import UUIDField

AnyField: TypeAlias = "models.Field[Any, Any]"
Convert = Callable[[Any], Any]
"""From a JSON value to what the database's driver takes, or `Unsure`."""

_HEX_DIGITS = frozenset("0123456789abcdef")


class Unsure(Exception):  # noqa: N818  (not an error: the record takes the long way)
    """The shortcut can't tell what the long way would make of a value."""


def conversion(field: AnyField) -> Convert | None:
    """The conversion of one field; None when only the field's own code can tell."""
    if getattr(field, "morango_serialize_to_string", False):
        return None
    convert: Convert | None
    if isinstance(field, models.ForeignKey):
        simple = type(field) in (models.ForeignKey, models.OneToOneField)
        convert = _exact_uuid if simple and type(field.target_field) is UUIDField else None
    else:
        maker = _MAKERS.get(type(field))
        convert = maker(field) if maker is not None else None
    if convert is None:
        return None
    return _with_choices(field, _nullable(field, convert))


def _nullable(field: AnyField, convert: Convert) -> Convert:
    """Django skips the checks of an empty value where blank is allowed; only null is plain then."""
    allowed = field.null and field.blank and not getattr(field, "auto_now", False)
    allowed = allowed and not getattr(field, "auto_now_add", False)

    def nullable(value: Any) -> Any:
        if value is None:
            if allowed:
                return None
            raise Unsure
        return convert(value)

    return nullable


def _with_choices(field: AnyField, convert: Convert) -> Convert:
    if field.choices is None:
        return convert
    chosen = frozenset(value for value, _ in field.flatchoices)

    def one_of(value: Any) -> Any:
        converted = convert(value)
        if converted is not None and converted not in chosen:
            raise Unsure
        return converted

    return one_of


def _text(field: AnyField) -> Convert | None:
    limits = _length_limits(field)
    if limits is None:
        return None
    longest = min(limits, default=None)
    blank = field.blank

    def text(value: Any) -> str:
        if type(value) is not str or not (value or blank) or "\x00" in value:
            raise Unsure
        if longest is not None and len(value) > longest:
            raise Unsure
        return value

    return text


def is_uuid(value: Any) -> bool:
    """Whether the value is an id as Morango writes them: 32 lower case hexadecimal digits."""
    return type(value) is str and len(value) == 32 and _HEX_DIGITS.issuperset(value)


def _exact_uuid(value: Any) -> Any:
    if type(value) is not str or len(value) != 32 or not _HEX_DIGITS.issuperset(value):
        raise Unsure
    return value


def _length_limits(field: AnyField) -> list[int] | None:
    """The longest texts that the field's validators allow; None when they ask for more than that."""
    limits = []
    for validator in field.validators:
        limit = getattr(validator, "limit_value", None)
        if type(validator) is not MaxLengthValidator or not isinstance(limit, int):
            return None
        limits.append(limit)
    return limits


def _uuid(field: AnyField) -> Convert | None:
    limits = _length_limits(field)
    return _exact_uuid if limits is not None and min(limits, default=32) >= 32 else None


def _boolean(field: AnyField) -> Convert | None:
    if field.validators:
        return None

    def boolean(value: Any) -> bool:
        if type(value) is not bool:
            raise Unsure
        return value

    return boolean


def _number(kinds: tuple[type, ...], result: type) -> Callable[[AnyField], Convert | None]:
    def make(field: AnyField) -> Convert | None:
        bounds = _bounds(field)
        if bounds is None:
            return None
        low, high = bounds

        def number(value: Any) -> Any:
            if type(value) not in kinds or not low <= value <= high:
                raise Unsure
            return result(value)

        return number

    return make


def _bounds(field: AnyField) -> tuple[float, float] | None:
    """What the field's validators allow; None when they ask for more than a range."""
    low, high = -math.inf, math.inf
    for validator in field.validators:
        limit = getattr(validator, "limit_value", None)
        if callable(limit) or not isinstance(limit, int | float):
            return None
        if type(validator) is MinValueValidator:
            low = max(low, limit)
        elif type(validator) is MaxValueValidator:
            high = min(high, limit)
        else:
            return None
    return (max(low, -1e308), min(high, 1e308)) if isinstance(field, models.FloatField) else (low, high)


def _moment(field: AnyField) -> Convert | None:
    if field.validators or not settings.USE_TZ:
        return None
    adapt = connection.ops.adapt_datetimefield_value

    def moment(value: Any) -> Any:
        # The forms that DjangoJSONEncoder writes; others are for Django's own parser.
        if type(value) is not str or len(value) not in (20, 24, 27):
            raise Unsure
        if value[4] + value[7] + value[10] + value[13] + value[16] + value[-1] != "--T::Z":
            raise Unsure
        if len(value) > 20 and value[19] != ".":
            raise Unsure
        try:
            parsed = datetime.datetime.fromisoformat(value)
        except ValueError:
            raise Unsure from None
        return adapt(parsed)

    return moment


def _day(field: AnyField) -> Convert | None:
    if field.validators:
        return None
    adapt = connection.ops.adapt_datefield_value

    def day(value: Any) -> Any:
        if type(value) is not str or len(value) != 10 or value[4] != "-" or value[7] != "-":
            raise Unsure
        try:
            parsed = datetime.date.fromisoformat(value)
        except ValueError:
            raise Unsure from None
        return adapt(parsed)

    return day


_MAKERS: Mapping[type[Any], Callable[[AnyField], Convert | None]] = {
    models.CharField: _text,
    models.TextField: _text,
    UUIDField: _uuid,
    models.BooleanField: _boolean,
    models.FloatField: _number((int, float), float),
    models.IntegerField: _number((int,), int),
    models.BigIntegerField: _number((int,), int),
    models.SmallIntegerField: _number((int,), int),
    models.PositiveIntegerField: _number((int,), int),
    models.PositiveBigIntegerField: _number((int,), int),
    models.PositiveSmallIntegerField: _number((int,), int),
    models.DateTimeField: _moment,
    models.DateField: _day,
}
