"""Common cause for which all records of a batch fail, if there is one that isn't about their data."""

from __future__ import annotations

import re

from django.core.exceptions import ObjectDoesNotExist, ValidationError
from django.db import DataError, IntegrityError
from morango.errors import MorangoDirtyParent, MorangoMissingParent

from morango_celery.deserialization.error_text import has_unreadable_fields
from morango_celery.deserialization.task import DeserializeTask
from morango_celery.errors import RecordError

ABOUT_DATA = (
    ValidationError,
    ObjectDoesNotExist,
    IntegrityError,
    DataError,
    MorangoDirtyParent,
    MorangoMissingParent,
    RecordError,
    # Python and models' code raise these for values of a kind that they don't expect
    ValueError,
    TypeError,
    LookupError,
    AttributeError,
    ArithmeticError,
    AssertionError,
    RecursionError,
)
"""Errors that the contents of a record can bring about. A device can bring them about by the records it
sends."""

_COMPARED_CHARACTERS = 500
_OWN_TO_RECORDS = re.compile(r"[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}|[0-9a-f]{32}|\d+")


class CommonCause:
    """Error that all failed records share, as long as they do."""

    def __init__(self) -> None:
        self._first: DeserializeTask | None = None
        self._text = ""
        self._kind = ""
        self._is_common = True

    def add(self, carrier: DeserializeTask, text: str) -> None:
        """Take in one more record in error.

        :param text: the error text of its Store row
        """
        kind = _kind(carrier, text)
        if self._first is None:
            self._first, self._kind, self._text = carrier, kind, text
        elif kind != self._kind:
            self._is_common = False

    @property
    def text(self) -> str:
        """Return the first record's error, if all records share it and it isn't about data; else ``""``."""
        if self._first is None or not self._is_common or _is_about_data(self._first):
            return ""
        return f"{type(self._first.errors[-1]).__name__}: {self._text}"


def _kind(carrier: DeserializeTask, text: str) -> str:
    """Return the error without numbers and ids, which differ from record to record."""
    said = _OWN_TO_RECORDS.sub("0", text[:_COMPARED_CHARACTERS])
    return f"{type(carrier.errors[-1]).__qualname__}: {said}"


def _is_about_data(carrier: DeserializeTask) -> bool:
    if isinstance(carrier.errors[-1], ABOUT_DATA):
        return True
    return carrier.has_model and has_unreadable_fields(carrier.store, carrier.model)
