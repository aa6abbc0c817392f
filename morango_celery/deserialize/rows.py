"""A compiled shortcut from JSON to table row, for models whose code is all Morango's own.

For such a model the way over an instance (``deserialize``, ``clean_fields``, ``save``) depends on
its fields alone, so it is worked out once per class: one small function per column. A shortcut is
taken only when a value is plainly right as it is. In every other case, valid or not, `Unsure` sends
the record the long way, which alone decides, and words the error.
"""

from __future__ import annotations

import datetime
import json
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, TypeAlias

from django.conf import settings
from django.core.validators import MaxLengthValidator, MaxValueValidator, MinValueValidator
from django.db import connection, models
from morango.models.core import Store, SyncableModel
from morango.models.fields.uuids import UUIDField

from morango_celery.deserialize.traits import Way, once_per_model, target_model, traits_of

AnyField: TypeAlias = "models.Field[Any, Any]"
Convert = Callable[[Any], Any]
"""From a JSON value to what the database's driver takes, or `Unsure`."""

_HEX_DIGITS = frozenset("0123456789abcdef")


class Unsure(Exception):  # noqa: N818  (not an error: the record takes the long way)
    """The shortcut can't tell what the long way would make of a value."""


@dataclass(frozen=True)
class RowPlan:
    """How to make rows of one model."""

    columns: tuple[tuple[str, Callable[[], Any], Convert], ...]
    """For each concrete field: JSON key, default, conversion."""
    references: tuple[tuple[int, str, models.ForeignKey[Any, Any]], ...]
    """For each foreign key: position among the columns, verbose name of the target, field."""
    key_position: int
    """Which column is the primary key."""

    def row(self, store: Store) -> list[Any]:
        """The column values of one record.

        :raises Unsure: take the long way
        """
        try:
            data = json.loads(store.serialized)
        except (ValueError, RecursionError):
            raise Unsure from None
        if type(data) is not dict:
            raise Unsure
        data["_morango_source_id"] = store.source_id
        data["_morango_partition"] = store.partition
        data["_morango_dirty_bit"] = False
        return [convert(data[key] if key in data else default()) for key, default, convert in self.columns]


@once_per_model
def row_plan(model: type[SyncableModel]) -> RowPlan | None:
    """The plan for a model; None when its own code, or a field's, has a say."""
    traits = traits_of(model)
    if traits.way is not Way.BULK or traits.follows_relations or traits.in_tree:
        return None
    columns = []
    references = []
    for position, field in enumerate(traits.fields):
        convert = _conversion(field)
        if convert is None:
            return None
        columns.append((field.attname, field.get_default, convert))
        if isinstance(field, models.ForeignKey):
            references.append((position, str(target_model(field)._meta.verbose_name), field))
    return RowPlan(tuple(columns), tuple(references), traits.fields.index(model._meta.pk))


def _conversion(field: AnyField) -> Convert | None:
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
