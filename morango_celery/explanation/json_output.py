"""The explanation of models as JSON, for programs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TypedDict

from django.db import connection

from morango_celery.deserialization.reasons import Reason
from morango_celery.explanation.models import ModelExplanation
from morango_celery.reading.definitions import Definition

VERSION = 1
"""Number that is raised when the meaning of a key changes, or a key goes."""


class CodeJson(TypedDict):
    """Code that a reason is about."""

    name: str
    overrides: str | None
    file: str | None
    line: int | None


class ReasonJson(TypedDict):
    """Reason why a model isn't on the fast path, or why it is exclusive."""

    kind: str
    subject: str | None
    text: str
    code: list[CodeJson]


class DependencyJson(TypedDict):
    """Model that is deserialized before."""

    model: str
    by: list[str]


class EquivalentJson(TypedDict):
    """Equivalents of a model's code, and of its fields' classes."""

    state: str
    problem: ReasonJson | None
    fields: dict[str, bool]


class StatementsJson(TypedDict):
    """Number of a batch's statements."""

    small_batch: int
    large_batch: int
    per_record: int
    per_record_of_large_batch: int
    exact: bool
    further: list[str]


class ModelJson(TypedDict):
    """One model."""

    model: str
    name: str
    stage: int
    depends_on: list[DependencyJson]
    fast_path: bool
    parsed: str
    validated: str
    written: str
    exclusive: bool
    exclusive_reasons: list[ReasonJson]
    reasons: list[ReasonJson]
    advice: list[str]
    equivalent: EquivalentJson
    statements: StatementsJson
    tree: str | None
    cycle: list[str]
    cyclic_keys: list[str]


class ProfileJson(TypedDict):
    """The models of one profile, in foreign key order."""

    profile: str
    models: list[ModelJson]


class ExplanationJson(TypedDict):
    """The whole, as ``explain_models --json`` writes it."""

    version: int
    database: str
    profiles: list[ProfileJson]


def explanation_json(explained: Mapping[str, Sequence[ModelExplanation]]) -> ExplanationJson:
    """Return the JSON of explanations, by profile."""
    return {
        "version": VERSION,
        "database": connection.vendor,
        "profiles": [
            {"profile": profile, "models": list(map(model_json, models))}
            for profile, models in explained.items()
        ],
    }


def model_json(explained: ModelExplanation) -> ModelJson:
    said, problem = explained.statements, explained.equivalent_problem
    return {
        "model": explained.label,
        "name": explained.model.morango_model_name,
        "stage": explained.stage,
        "depends_on": [{"model": each.label, "by": list(each.by)} for each in explained.dependencies],
        "fast_path": explained.is_on_fast_path,
        "parsed": explained.parsing.value,
        "validated": explained.validation.value,
        "written": explained.writing.value,
        "exclusive": explained.is_exclusive,
        "exclusive_reasons": list(map(_reason, explained.exclusive_reasons)),
        "reasons": list(map(_reason, explained.reasons)),
        "advice": explained.advice,
        "equivalent": {
            "state": explained.equivalent.value,
            "problem": _reason(problem) if problem is not None else None,
            "fields": {each.field_class: each.matches for each in explained.field_equivalents},
        },
        "statements": {
            "small_batch": said.small_batch,
            "large_batch": said.large_batch,
            "per_record": said.per_record,
            "per_record_of_large_batch": said.per_record_of_large_batch,
            "exact": said.are_known,
            "further": list(said.further),
        },
        "tree": explained.tree_key,
        "cycle": list(explained.in_cycle_with),
        "cyclic_keys": list(explained.cyclic_keys),
    }


def _reason(reason: Reason) -> ReasonJson:
    return {
        "kind": reason.kind.value,
        "subject": reason.subject or None,
        "text": reason.text,
        "code": list(map(_code, reason.code)),
    }


def _code(code: Definition) -> CodeJson:
    place = code.place
    return {
        "name": code.dotted_name,
        "overrides": code.overrides or None,
        "file": place.file if place is not None else None,
        "line": place.line if place is not None else None,
    }
