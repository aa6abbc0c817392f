"""Reasons why a rule of a declared equivalent can't be applied to the records of a model."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any, assert_never

from django.core.exceptions import FieldDoesNotExist
from django.db.models import CharField, Field, ForeignKey, Manager, Model, TextField
from morango.models.fields.uuids import UUIDField

from morango_celery.deserialization.traits import target_model
from morango_celery.equivalents import Between, Computed, RowExists, Rule, SameAs, TargetIn


def subject_of(rule: Rule) -> str:
    """Return the name of the columns that a rule is about."""
    return listed(name for name, _ in rule.columns) if isinstance(rule, RowExists) else rule.column


def problem_of(model: type[Model], rule: Rule) -> str:
    """Return the reason why a rule can't be applied to the records of a model; empty if it can."""
    return next(filter(None, _problems(model, rule)), "")


def _problems(model: type[Model], rule: Rule) -> Iterator[str]:
    """Yield a text for each part of a rule; empty where nothing is wrong."""
    if isinstance(rule, Between):
        yield _missing(model, rule.column)
        yield "" if rule.low <= rule.high else f"{rule.low} is above {rule.high}"
    elif isinstance(rule, Computed):
        yield _missing(model, rule.column, *rule.sources)
    elif isinstance(rule, SameAs):
        yield _missing(model, rule.column)
        yield _problem_of_target(model, rule.foreign_key, rule.column)
    elif isinstance(rule, TargetIn):
        yield _problem_of_target(model, rule.foreign_key, rule.column, is_text=True)
    elif isinstance(rule, RowExists):
        yield "" if rule.columns else "it names no column"
        for name, source in rule.columns:
            yield _problem_of_id(model, name)
            foreign_key, dot, column = source.partition(".")
            yield _problem_of_target(model, foreign_key, column) if dot else _problem_of_id(model, source)
        if rule.when is not None:
            yield from _problems(model, rule.when)
    else:
        assert_never(rule)


def _missing(model: type[Model], *names: str) -> str:
    missing = sorted(name for name in set(names) if _column(model, name) is None)
    return f"{model._meta.label} has no column {listed(missing)}" if missing else ""


def _problem_of_id(model: type[Model], name: str) -> str:
    column = _column(model, name)
    if column is None:
        return _missing(model, name)
    return "" if _is_id(column) else f"{name} of {model._meta.label} is no id of Morango's"


def _problem_of_target(model: type[Model], foreign_key: str, name: str, *, is_text: bool = False) -> str:
    """Return the reason why a column of the row that a foreign key refers to can't be looked at."""
    try:
        key = model._meta.get_field(foreign_key)
    except FieldDoesNotExist:
        key = None
    if not isinstance(key, ForeignKey):
        return f"{model._meta.label} has no foreign key {foreign_key!r}"
    target = target_model(key)
    column = _column(target, name)
    if column is None:
        return f"{target._meta.label} has no column {name}"
    if type(target._meta.pk) is not UUIDField or key.target_field is not target._meta.pk:
        return f"{foreign_key} refers to something else than an id of Morango's"
    if type(target._base_manager) is not Manager:
        return f"the base manager of {target._meta.label} is its own"
    if is_text:
        return "" if type(column) in _TEXTS else f"{name} of {target._meta.label} is no plain text"
    return _problem_of_id(target, name)


_TEXTS = (CharField, TextField)


def _column(model: type[Model], name: str) -> Field[Any, Any] | None:
    return next((field for field in model._meta.fields if field.concrete and field.attname == name), None)


def _is_id(column: Field[Any, Any]) -> bool:
    return type(column.target_field if isinstance(column, ForeignKey) else column) is UUIDField


def listed(names: Iterable[str]) -> str:
    return ", ".join(names)
