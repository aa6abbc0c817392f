"""Texts of errors, as Store rows hold them."""

from __future__ import annotations

import json
from collections.abc import Iterator
from reprlib import Repr

from django.core.exceptions import ObjectDoesNotExist, ValidationError
from django.db import IntegrityError, connection
from morango.errors import MorangoDirtyParent, MorangoMissingParent
from morango.models.core import Store, SyncableModel

from morango_celery.deserialization.values import require_readable
from morango_celery.errors import RecordError

STORED_VERBATIM = (
    ValidationError,
    ObjectDoesNotExist,
    ValueError,
    IntegrityError,
    MorangoDirtyParent,
    MorangoMissingParent,
    RecordError,
)
"""Errors that Morango writes to the Store with their text alone, and errors that are worded here. Any other
error ends Morango's run, and its text may be as short as ``'invalid'``, that of a `KeyError`.
"""

_SHORTENED = Repr()
_SHORTENED.maxstring = _SHORTENED.maxother = 60


def error_text(error: Exception, store: Store, model: type[SyncableModel] | None) -> str:
    """Return the error's own text, preceded by the record's unreadable values where the text alone may not
    do.

    :param model: None where no app has one
    """
    text = _text(error)
    if text.strip() and isinstance(error, STORED_VERBATIM):
        return _storable(text)
    unreadable = _unreadable_fields(store, model) if model is not None else ""
    if unreadable or isinstance(error, LookupError) or not text.strip():
        text = f"{unreadable}{type(error).__name__}: {text}".rstrip(": ")
    return _storable(text)


def has_unreadable_fields(store: Store, model: type[SyncableModel]) -> bool:
    """Return True if any value of the record is unreadable, so that `error_text` names it where needed."""
    return bool(_unreadable_fields(store, model))


def _text(error: Exception) -> str:
    """Return an error's text, for ``clean_fields`` without the copies that Django makes of all its parts."""
    if type(error) is not ValidationError or not hasattr(error, "error_dict"):
        return str(error)
    said = {name: [_message(each) for each in errors] for name, errors in error.error_dict.items()}
    return repr(said)


def _message(error: ValidationError) -> str:
    return str(error.message % error.params if error.params else error.message)


def _storable(text: str) -> str:
    text = text.replace("\x00", "\\x00")  # PostgreSQL's text can't hold it
    return text.encode("utf-8", "backslashreplace").decode("utf-8")


def _unreadable_fields(store: Store, model: type[SyncableModel]) -> str:
    try:
        data = json.loads(store.serialized)
    except (ValueError, RecursionError):
        return ""
    if not isinstance(data, dict):
        return f"The record's JSON is no object, but {_SHORTENED.repr(data)}. "
    named = ", ".join(f"{name} = {_SHORTENED.repr(data[name])}" for name in _unreadable(data, model))
    return f"Not readable: {named}. " if named else ""


def _unreadable(data: dict[str, object], model: type[SyncableModel]) -> Iterator[str]:
    for field in model._meta.concrete_fields:
        name = field.attname
        if data.get(name) is None:
            continue
        try:
            value = field.to_python(data[name])
            require_readable(value)
            field.get_db_prep_save(value, connection)
        except ValidationError:
            pass  # would have been said
        except Exception:  # a field's code may raise anything for a value that it doesn't expect
            yield name
