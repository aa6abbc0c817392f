"""Match of declared equivalents with the code that is installed."""

from __future__ import annotations

from collections.abc import Iterable
from itertools import chain
from typing import Any

from django.core.exceptions import FieldDoesNotExist
from django.db.models import Field, ForeignKey, Manager, Model
from morango.models.core import SyncableModel
from morango.models.fields.uuids import UUIDField

from morango_celery.conf import settings
from morango_celery.deserialization.reasons import Kind, Reason
from morango_celery.deserialization.traits import (
    PARSING,
    VALIDATION,
    once_per_model,
    own_code,
    target_model,
)
from morango_celery.django_compat import SAVING
from morango_celery.equivalents import (
    Between,
    Computed,
    Equivalent,
    FieldEquivalent,
    Rule,
    SameAs,
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
        said = f"it overrides {_listed(own)}, and no equivalent is declared"
        return Reason(Kind.NO_EQUIVALENT, said, all_code, _listed(own))
    if others := [name for name in own if name not in equivalent.overrides]:
        said = f"it overrides {_listed(others)} too, beside the code that its equivalent stands for"
        code = tuple(chain.from_iterable(own[name] for name in others))
        return Reason(Kind.FURTHER_OVERRIDE, said, code, _listed(others))
    for rule in equivalent.rules:
        if problem := _problem(model, rule):
            said = f"its equivalent has a rule that can't be applied: {problem}"
            return Reason(Kind.UNUSABLE_RULE, said, all_code, rule.column)
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
        said = f"it overrides {_listed(others)} too, beside the code that its equivalent stands for"
        _field_mismatches[field] = (
            Reason(Kind.FURTHER_OVERRIDE, said, code, _listed(others))
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


def _problem(model: type[Model], rule: Rule) -> str:
    """Return the reason why a rule can't be applied to the records of a model; empty if it can."""
    names = {field.attname for field in model._meta.fields}
    used = {rule.column, *(rule.sources if isinstance(rule, Computed) else ())}
    if missing := sorted(used - names):
        return f"{model._meta.label} has no column {_listed(missing)}"
    if isinstance(rule, Between):
        return "" if rule.low <= rule.high else f"{rule.low} is above {rule.high}"
    return _problem_of_target(model, rule) if isinstance(rule, SameAs) else ""


def _problem_of_target(model: type[Model], rule: SameAs) -> str:
    try:
        key = model._meta.get_field(rule.foreign_key)
    except FieldDoesNotExist:
        key = None
    if not isinstance(key, ForeignKey):
        return f"{model._meta.label} has no foreign key {rule.foreign_key!r}"
    target = target_model(key)
    column = next((each for each in target._meta.fields if each.attname == rule.column), None)
    if column is None:
        return f"{target._meta.label} has no column {rule.column}"
    if type(target._meta.pk) is not UUIDField or key.target_field is not target._meta.pk:
        return f"{rule.foreign_key} refers to something else than an id of Morango's"
    if type(target._base_manager) is not Manager:
        return f"the base manager of {target._meta.label} is its own"
    held = column.target_field if isinstance(column, ForeignKey) else column
    return "" if type(held) is UUIDField else f"{rule.column} of {target._meta.label} is no id of Morango's"


def _listed(names: Iterable[str]) -> str:
    return ", ".join(names)
