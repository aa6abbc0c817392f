"""Names of a log's objects in the database: dead letters and the lines that wait for them meet by these."""

from __future__ import annotations

from contextlib import suppress
from datetime import UTC, datetime
from decimal import Decimal
from hashlib import sha256
from typing import Any

from morango_celery.errors import UnknownModelError
from morango_celery.oplog.lines import printable
from morango_celery.oplog.meta import concrete, own_fields
from morango_celery.oplog.rows import table_of

MAX_NAME_CHARACTERS = 200
"""Limit on a name. A longer one is shortened, and made unique by its hash."""


def name(label: str, key: object) -> str:
    """Return an object's name in the database: ``app.model:key``, at most 255 characters long."""
    text = printable(f"{label.lower()}:{key}")
    if len(text) <= MAX_NAME_CHARACTERS:
        return text
    return f"{text[: MAX_NAME_CHARACTERS // 2]}#{sha256(text.encode()).hexdigest()}"


def name_by_key(label: str, value: Any) -> str:
    """Return an object's name by its key's value in the column, for any form of the key in a line.

    A value that can't be a key, or that belongs to no model, is named as it is in the line.
    """
    try:
        table = table_of(label)
        key = _text_of_key(table.key(value)[1])
    except Exception:  # a field's own, of any kind
        return name(label, value)
    return name(table.concrete._meta.label, key)


def name_of_any(label: str) -> str:
    """Return the name that stands for any object of a model."""
    with suppress(UnknownModelError):
        label = table_of(label).concrete._meta.label
    return name(label, "*")


def _text_of_key(value: Any) -> str:
    """Return one text for equal values of a column, whichever types the driver has for them."""
    if isinstance(value, Decimal):
        return format(value.normalize(), "f")
    if isinstance(value, datetime) and value.tzinfo is not None:
        return value.astimezone(UTC).isoformat()
    return str(value)


def name_of(data: dict[str, Any]) -> str:
    """Return the name of a line's object, by its natural key if need be; empty if it has no key at all."""
    try:
        if data.get("pk") is not None:
            return name_by_key(data["model"], data["pk"])
        model = table_of(data["model"]).model
        plain = {
            own.name: own.to_python(data["fields"][own.name])
            for own in own_fields(model)
            if own.name in data["fields"] and not own.remote_field
        }
        natural_key = model(**plain).natural_key()  # type: ignore[attr-defined]  # or it has none
        return name(concrete(model)._meta.label, natural_key)
    except Exception:  # an object without a name is found by no other line
        return ""
