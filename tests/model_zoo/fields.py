"""Fields with different values in JSON, in Python and in the database."""

from __future__ import annotations

import datetime
import decimal
import enum
import json
from typing import Any
from zoneinfo import ZoneInfo

from django.core.exceptions import ValidationError
from django.db import models
from typing_extensions import override


class KeyWithItsForm(models.ForeignKey):  # type: ignore[type-arg]
    """Foreign key with a form field of its own, and nothing else, as django-mptt's."""

    @override
    def formfield(self, **kwargs: Any) -> Any:  # type: ignore[override]  # as Django's own foreign keys do
        return super().formfield(**kwargs)


class WordsField(models.TextField):  # type: ignore[type-arg]
    """List of words; Morango carries it as the text that `value_to_string` makes."""

    morango_serialize_to_string = True

    def from_db_value(self, value: str | None, expression: Any, connection: Any) -> list[str] | None:
        return None if value is None else value.split()

    @override
    def to_python(self, value: Any) -> list[str] | None:
        """Parse words.

        :raises ValidationError: neither text nor a list
        """
        if value is None or isinstance(value, list):
            return value
        if not isinstance(value, str):
            raise ValidationError(f"{value!r} is no list of words.", code="invalid")
        return value.split()

    @override
    def get_prep_value(self, value: Any) -> str | None:
        words = self.to_python(value)
        return None if words is None else " ".join(words)

    @override
    def value_to_string(self, obj: models.Model) -> str:
        return self.get_prep_value(self.value_from_object(obj)) or ""


class NotesField(models.TextField):  # type: ignore[type-arg]
    """Object that is kept as the text of its JSON, as Kolibri's fields of JSON are."""

    morango_serialize_to_string = True

    def from_db_value(self, value: str | None, expression: Any, connection: Any) -> Any:
        return None if value is None else json.loads(value)

    @override
    def to_python(self, value: Any) -> Any:
        """Parse JSON.

        :raises ValidationError: a text that is no JSON
        """
        if not isinstance(value, str):
            return value
        try:
            return json.loads(value)
        except ValueError:
            raise ValidationError(f"{value!r} is no JSON.", code="invalid") from None

    @override
    def get_prep_value(self, value: Any) -> str | None:
        return None if value is None else json.dumps(value)

    @override
    def value_to_string(self, obj: models.Model) -> str | None:  # type: ignore[override]  # as Kolibri's
        return self.get_prep_value(self.value_from_object(obj))


class ZonedTimeField(models.Field):  # type: ignore[type-arg]
    """Time and its zone in one text, as Kolibri's fields of times are."""

    morango_serialize_to_string = True

    @override
    def db_type(self, connection: Any) -> str:
        return "varchar"

    def from_db_value(self, value: str | None, expression: Any, connection: Any) -> datetime.datetime | None:
        return self.to_python(value)

    @override
    def to_python(self, value: Any) -> datetime.datetime | None:
        """Parse a time.

        :raises ValueError: a text that is no time; a plain one, as Kolibri's fields raise it
        """
        if value is None or isinstance(value, datetime.datetime):
            return value
        text, _, zone = value.partition("(")
        time = datetime.datetime.fromisoformat(text).replace(tzinfo=datetime.UTC)
        return time.astimezone(ZoneInfo(zone.rstrip(")")))

    @override
    def get_prep_value(self, value: Any) -> str | None:
        time = self.to_python(value)
        if time is None:
            return None
        return f"{time.astimezone(datetime.UTC).replace(tzinfo=None).isoformat(' ')}({time.tzinfo})"

    @override
    def value_to_string(self, obj: models.Model) -> str | None:  # type: ignore[override]  # as Kolibri's
        return self.get_prep_value(self.value_from_object(obj))


class Color(enum.StrEnum):
    RED = "red"
    GREEN = "green"


_COLORS = [Color.RED, Color.GREEN]


class ColorField(models.CharField):  # type: ignore[type-arg]
    """Enumeration, kept by the numbers of its members."""

    def __init__(self, **options: Any) -> None:
        super().__init__(**{**options, "max_length": 5})

    @override
    def db_type(self, connection: Any) -> str:
        return "smallint"

    def from_db_value(self, value: int | None, expression: Any, connection: Any) -> Color | None:
        return None if value is None else _COLORS[value]

    @override
    def to_python(self, value: Any) -> Color | None:
        """Parse a member's value.

        :raises ValidationError: no member's value
        """
        try:
            return None if value is None else Color(value)
        except ValueError:
            raise ValidationError(f"{value!r} is no color.", code="invalid") from None

    @override
    def get_prep_value(self, value: Any) -> int | None:
        color = self.to_python(value)
        return None if color is None else _COLORS.index(color)


class CentsField(models.Field):  # type: ignore[type-arg]
    """Amount of money, kept in cents."""

    @override
    def db_type(self, connection: Any) -> str:
        return "bigint"

    def from_db_value(self, value: int | None, expression: Any, connection: Any) -> decimal.Decimal | None:
        return None if value is None else decimal.Decimal(value).scaleb(-2)

    @override
    def to_python(self, value: Any) -> decimal.Decimal | None:
        """Parse an amount.

        :raises ValidationError: no amount
        """
        try:
            return None if value is None else decimal.Decimal(value)
        except (ArithmeticError, TypeError, ValueError):
            raise ValidationError(f"{value!r} is no amount.", code="invalid") from None

    @override
    def get_prep_value(self, value: Any) -> int | None:
        amount = self.to_python(value)
        return None if amount is None else int(amount.scaleb(2))


class LoudField(models.CharField):  # type: ignore[type-arg]
    """Text that the database puts into capitals as it takes it."""

    def get_placeholder(self, value: Any, compiler: Any, connection: Any) -> str:
        return "upper(%s)"
