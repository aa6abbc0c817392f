"""Reasons for the way in which a model's records are handled: the engine decides by them."""

from __future__ import annotations

import enum
from dataclasses import dataclass

from typing_extensions import override

from morango_celery.reading.definitions import Definition


class Kind(enum.StrEnum):
    """Kind of a reason, for programs and for advice."""

    NO_EQUIVALENT = "no equivalent"
    FURTHER_OVERRIDE = "further override"
    UNUSABLE_RULE = "unusable rule"
    UNREADABLE_CODE = "unreadable code"
    OTHER_VERSION = "other version"
    EQUIVALENTS_OFF = "equivalents off"
    FIELD = "field"
    FIELD_EQUIVALENT = "field equivalent"
    VALIDATORS = "validators"
    REFERENCE = "reference"
    NO_TIME_ZONES = "no time zones"
    PROPERTY = "property"
    ATTRIBUTE_ACCESS = "attribute access"
    TREE = "tree"
    TABLES = "tables"
    COMPUTED_COLUMN = "computed column"
    RECEIVER = "receiver"
    SAVED_INDIVIDUALLY = "saved individually"
    EXCLUSIVE = "exclusive"
    SEEN_WRITING = "seen writing"


@dataclass(frozen=True)
class Reason:
    """One reason, and the code that it is about."""

    kind: Kind
    text: str
    """Clause about the model, without a full stop."""
    code: tuple[Definition, ...] = ()
    subject: str = ""
    """Name of the field, setting, rule or model that it is about."""

    @override
    def __str__(self) -> str:
        return self.text
