"""The explanation of each model of a profile: where it stands in the plan, how it is handled, and why."""

from __future__ import annotations

import enum
from collections.abc import Iterator
from dataclasses import dataclass

from morango_celery.deserialization.dependency_graph import (
    Component,
    Model,
    components,
    cyclic_foreign_keys,
    dependencies,
    exclusive_models,
)
from morango_celery.deserialization.equivalent import field_mismatch, unused_because
from morango_celery.deserialization.exclusive import exclusive_reasons
from morango_celery.deserialization.parse import fast_path, instance_reasons
from morango_celery.deserialization.reasons import Reason
from morango_celery.deserialization.rows import RowPlan
from morango_celery.deserialization.traits import Traits, WriteStrategy, traits_of
from morango_celery.equivalents import declared, declared_for_field
from morango_celery.explanation.advice import advice_on
from morango_celery.explanation.statements import Statements, statements_of
from morango_celery.runs.plan import steps
from morango_celery.upstream import registered_models


class Parsing(enum.StrEnum):
    """Ways from JSON to what is validated and written."""

    ROW = "row"
    """A column at a time, without an instance."""
    INSTANCE = "instance"
    """An instance, as Morango's ``deserialize()`` makes it."""
    OWN = "own deserialize()"
    """An instance, by code of the model's own."""


class Validation(enum.StrEnum):
    """Ways to validate a record. Foreign keys are looked up for all records of a batch in any case."""

    COLUMNS = "columns"
    """Converters do it, a column at a time."""
    CLEAN_FIELDS = "clean_fields()"
    """Morango's ``clean_fields()`` does it, for each record."""
    OWN = "own clean_fields()"
    """Code of the model's own does it, for each record."""


class Equivalent(enum.StrEnum):
    """States of a model's equivalent."""

    NOT_NEEDED = "not needed"
    NONE = "none declared"
    MATCHES = "matches"
    UNUSED = "unused"


@dataclass(frozen=True)
class Dependency:
    """Model that has to be deserialized before."""

    label: str
    by: tuple[str, ...]
    """Foreign keys that say so; ``morango_model_dependencies`` where the class does."""


@dataclass(frozen=True)
class FieldEquivalent:
    """Equivalent that is declared for a class of fields."""

    field_class: str
    matches: bool
    """True if it stands for the installed code."""


@dataclass(frozen=True)
class ModelExplanation:
    """Handling of the records of one model, with the reasons."""

    model: Model
    stage: int
    """Number of the stage in a run with more records than one batch holds, from 1. Stages of models without
    waiting records are left out of a run."""
    dependencies: tuple[Dependency, ...]
    parsing: Parsing
    validation: Validation
    writing: WriteStrategy
    reasons: tuple[Reason, ...]
    """All reasons against the fast path; none if the model is on it."""
    exclusive_reasons: tuple[Reason, ...]
    in_cycle_with: tuple[str, ...]
    """Labels of models that have to be deserialized together with this one."""
    cyclic_keys: tuple[str, ...]
    """Foreign keys that are part of a cycle of models."""
    tree_key: str | None
    """Foreign key to the parent record, of models that are deserialized as a tree."""
    is_exclusive: bool
    """True if batches with records of it are executed one after another."""
    equivalent: Equivalent
    equivalent_problem: Reason | None
    """Reason why a declared equivalent isn't used."""
    field_equivalents: tuple[FieldEquivalent, ...]
    """Equivalents that are declared for classes of the model's fields."""
    statements: Statements

    @property
    def label(self) -> str:
        label: str = self.model._meta.label
        return label

    @property
    def is_on_fast_path(self) -> bool:
        return not self.reasons

    @property
    def advice(self) -> list[str]:
        """Return the remedies of the reasons."""
        return advice_on(self.reasons, self.model)


def explain(profile: str) -> list[ModelExplanation]:
    """Return the explanations of a profile's models, in the order in which a run takes them.

    Cost: no statement; milliseconds per model, the first time, to find the lines of code.
    """
    stage_of = {model: number for number, step in enumerate(steps(profile), 1) for model in step.models}
    component_of = {model: component for component in components(profile) for model in component.models}
    ordered = sorted(component_of, key=lambda model: stage_of[model])  # stable: foreign key order within
    return [_explained(profile, model, stage_of[model], component_of[model]) for model in ordered]


def _explained(profile: str, model: Model, stage: int, component: Component) -> ModelExplanation:
    traits = traits_of(model)
    plan = fast_path(model)
    state, problem = _equivalent(model, traits)
    return ModelExplanation(
        model=model,
        stage=stage,
        dependencies=tuple(_dependencies(profile, model)),
        parsing=_parsing(traits, plan),
        validation=_validation(traits, plan),
        writing=traits.write_strategy if plan is None else WriteStrategy.BULK,
        reasons=instance_reasons(model),
        exclusive_reasons=exclusive_reasons(model),
        in_cycle_with=tuple(other._meta.label for other in component.models if other is not model),
        cyclic_keys=tuple(key.name for key in cyclic_foreign_keys(profile)[model]),
        tree_key=traits.tree_key.name if traits.tree_key is not None else None,
        is_exclusive=model in exclusive_models(profile),
        equivalent=state,
        equivalent_problem=problem,
        field_equivalents=tuple(
            FieldEquivalent(kind.__name__, field_mismatch(kind) is None)
            for kind in dict.fromkeys(map(type, traits.fields))
            if declared_for_field(kind) is not None
        ),
        statements=statements_of(profile, model),
    )


def _parsing(traits: Traits, plan: RowPlan | None) -> Parsing:
    if plan is not None:
        return Parsing.ROW
    return Parsing.OWN if traits.overrides_deserialize else Parsing.INSTANCE


def _validation(traits: Traits, plan: RowPlan | None) -> Validation:
    if plan is not None:
        return Validation.COLUMNS
    return Validation.OWN if traits.overrides_clean_fields else Validation.CLEAN_FIELDS


def _equivalent(model: Model, traits: Traits) -> tuple[Equivalent, Reason | None]:
    problem = unused_because(model) if traits.follows_relations else None
    if declared(model) is None:
        return Equivalent.NONE if traits.follows_relations else Equivalent.NOT_NEEDED, None
    return (Equivalent.MATCHES, None) if problem is None else (Equivalent.UNUSED, problem)


def _dependencies(profile: str, model: Model) -> Iterator[Dependency]:
    for other, names in dependencies(model, registered_models(profile)).items():
        if other is not model:
            yield Dependency(other._meta.label, tuple(names))
