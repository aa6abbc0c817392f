"""Match of declared equivalents with the code that is installed."""

from __future__ import annotations

from typing import Any

from django.core.exceptions import FieldDoesNotExist
from django.db.models import Field, ForeignKey, Manager, Model
from morango.models.core import SyncableModel
from morango.models.fields.uuids import UUIDField

from morango_celery.conf import settings
from morango_celery.deserialization.traits import (
    VALIDATION,
    once_per_model,
    overrides,
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

CALLED = (*SAVING, *VALIDATION, "deserialize", "__init__")
"""Methods of a model that deserializing calls."""


def equivalent_of(model: type[SyncableModel]) -> Equivalent | None:
    """Return the declared equivalent of a model if it stands for the code that is installed."""
    return None if not settings.USE_EQUIVALENTS or mismatch(model) else declared(model)


def field_equivalent(field: type[Field[Any, Any]]) -> FieldEquivalent | None:
    """Return the declared equivalent of a class of fields if it stands for the code that is installed."""
    equivalent = declared_for_field(field)
    if equivalent is None or not settings.USE_EQUIVALENTS or field_mismatch(field):
        return None
    return equivalent


@once_per_model
def mismatch(model: type[SyncableModel]) -> str:
    """Return the reason why no declared equivalent stands for a model's code; empty if one does."""
    equivalent = declared(model)
    own = [name for name in CALLED if overrides(model, name)]
    if equivalent is None:
        return f"it overrides {_listed(own)}, and no equivalent is declared"
    if others := [name for name in own if name not in equivalent.overrides]:
        return f"it overrides {_listed(others)} too, beside the code that its equivalent stands for"
    for rule in equivalent.rules:
        if problem := _problem(model, rule):
            return f"its equivalent has a rule that can't be applied: {problem}"
    return _hash_mismatch(model, (*equivalent.overrides, *equivalent.calls), equivalent.sha256)


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

_field_mismatches: dict[type[Any], str] = {}


def field_mismatch(field: type[Any]) -> str:
    """Return the reason why no declared equivalent stands for the code of a class of fields; empty if one
    does."""
    equivalent = declared_for_field(field)
    if equivalent is None:
        return "no equivalent is declared"
    if field not in _field_mismatches:
        others = [name for name in FIELD_CALLED if is_own(field, name) and name not in equivalent.calls]
        _field_mismatches[field] = (
            f"it overrides {_listed(others)} too, beside the code that its equivalent stands for"
            if others
            else _hash_mismatch(field, equivalent.calls, equivalent.sha256)
        )
    return _field_mismatches[field]


def _hash_mismatch(owner: type[Any], names: tuple[str, ...], sha256: str) -> str:
    try:
        found = source_hash(owner, names)
    except (UnknownCodeError, ImportError) as error:
        return str(error)
    if found == sha256:
        return ""
    return f"its code is another version: its SHA-256 is {found}, and the equivalent stands for {sha256}"


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


def _listed(names: list[str]) -> str:
    return ", ".join(names)
