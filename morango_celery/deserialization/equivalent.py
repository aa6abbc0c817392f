"""Match of declared equivalents with the code that is installed."""

from __future__ import annotations

from itertools import chain
from typing import Any

from django.db.models import Field
from morango.models.core import SyncableModel

from morango_celery.conf import settings
from morango_celery.deserialization.reasons import Kind, Reason
from morango_celery.deserialization.rule_problems import listed, problem_of, subject_of
from morango_celery.deserialization.traits import PARSING, VALIDATION, once_per_model, own_code
from morango_celery.django_compat import SAVING
from morango_celery.equivalents import (
    Equivalent,
    FieldEquivalent,
    UnknownCodeError,
    declared,
    declared_for_field,
    is_own,
    source_hash,
)
from morango_celery.reading.definitions import Definition, attribute_of, definition_of

CALLED = (*SAVING, *VALIDATION, *PARSING)
"""Methods of a model that deserializing calls."""


def equivalent_of(model: type[SyncableModel]) -> Equivalent | None:
    """Return the declared equivalent of a model if it stands for the code that is installed."""
    return None if unused_because(model) else declared(model)


def unused_because(model: type[SyncableModel]) -> Reason | None:
    """Return the reason why code of a model's own runs for each record; None if rules stand for it."""
    if declared(model) is not None and not settings.USE_EQUIVALENTS:
        said = "USE_EQUIVALENTS is False, so the equivalent that is declared isn't used"
        return Reason(Kind.EQUIVALENTS_OFF, said, own_code(model, *CALLED), "USE_EQUIVALENTS")
    return mismatch(model)


def field_equivalent(field: type[Field[Any, Any]]) -> FieldEquivalent | None:
    """Return the declared equivalent of a class of fields if it stands for the code that is installed."""
    equivalent = declared_for_field(field)
    if equivalent is None or not settings.USE_EQUIVALENTS or field_mismatch(field):
        return None
    return equivalent


@once_per_model
def mismatch(model: type[SyncableModel]) -> Reason | None:
    """Return the reason why no declared equivalent stands for a model's code; None if one does."""
    equivalent = declared(model)
    own = {name: code for name in CALLED if (code := own_code(model, name))}
    all_code = tuple(chain.from_iterable(own.values()))
    if equivalent is None:
        said = f"it overrides {listed(own)}, and no equivalent is declared"
        return Reason(Kind.NO_EQUIVALENT, said, all_code, listed(own))
    if others := [name for name in own if name not in equivalent.overrides]:
        said = f"it overrides {listed(others)} too, beside the code that its equivalent stands for"
        code = tuple(chain.from_iterable(own[name] for name in others))
        return Reason(Kind.FURTHER_OVERRIDE, said, code, listed(others))
    for rule in equivalent.rules:
        if problem := problem_of(model, rule):
            said = f"its equivalent has a rule that can't be applied: {problem}"
            return Reason(Kind.UNUSABLE_RULE, said, all_code, subject_of(rule))
    return _hash_mismatch(model, (*equivalent.overrides, *equivalent.calls), equivalent.sha256, all_code)


FIELD_CALLED = (
    "to_python",
    "clean",
    "validate",
    "run_validators",
    "pre_save",
    "get_prep_value",
    "get_db_prep_value",
    "get_db_prep_save",
    "get_default",
    "db_type",
)
"""Methods of a field that deserializing calls."""

_field_mismatches: dict[type[Any], Reason | None] = {}


def field_mismatch(field: type[Any]) -> Reason | None:
    """Return the reason why no declared equivalent stands for the code of a class of fields; None if one
    does."""
    equivalent = declared_for_field(field)
    if equivalent is None:
        return Reason(Kind.FIELD, "no equivalent is declared", (definition_of(field),), field.__name__)
    if field not in _field_mismatches:
        others = [name for name in FIELD_CALLED if is_own(field, name) and name not in equivalent.calls]
        code = tuple(attribute_of(field, name) for name in others)
        said = f"it overrides {listed(others)} too, beside the code that its equivalent stands for"
        _field_mismatches[field] = (
            Reason(Kind.FURTHER_OVERRIDE, said, code, listed(others))
            if others
            else _hash_mismatch(field, equivalent.calls, equivalent.sha256, (definition_of(field),))
        )
    return _field_mismatches[field]


def _hash_mismatch(
    owner: type[Any], names: tuple[str, ...], sha256: str, code: tuple[Definition, ...]
) -> Reason | None:
    try:
        found = source_hash(owner, names)
    except (UnknownCodeError, ImportError) as error:
        return Reason(Kind.UNREADABLE_CODE, str(error).removesuffix("."), code)
    if found == sha256:
        return None
    said = f"its code is another version: its SHA-256 is {found}, and the equivalent stands for {sha256}"
    return Reason(Kind.OTHER_VERSION, said, code, found)
