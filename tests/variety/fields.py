"""A field that is text in JSON and in the database, and something else in between."""

from __future__ import annotations

from typing import Any

from django.core.exceptions import ValidationError
from django.db import models


class WordsField(models.TextField):  # type: ignore[type-arg]
    """A list of words; Morango carries it as the text that `value_to_string` makes."""

    morango_serialize_to_string = True

    def from_db_value(self, value: str | None, expression: Any, connection: Any) -> list[str] | None:
        return None if value is None else value.split()

    def to_python(self, value: Any) -> list[str] | None:
        """:raises ValidationError: neither text nor a list"""
        if value is None or isinstance(value, list):
            return value
        if not isinstance(value, str):
            raise ValidationError(f"{value!r} is no list of words.", code="invalid")
        return value.split()

    def get_prep_value(self, value: Any) -> str | None:
        words = self.to_python(value)
        return None if words is None else " ".join(words)

    def value_to_string(self, obj: models.Model) -> str:
        return self.get_prep_value(self.value_from_object(obj)) or ""
