"""Dependencies between models, from their foreign keys, and between the records of a tree."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from itertools import chain
from typing import Any

from django.db import models
from django.db.models import ForeignKey
from morango.models.core import SyncableModel

from morango_celery.deserialization.exclusive import exclusive_among
from morango_celery.deserialization.graph import levels, strongly_connected_components
from morango_celery.deserialization.task import DeserializeTask
from morango_celery.deserialization.traits import once_per_model, target_model, traits_of
from morango_celery.upstream import registered_models, self_referential_fk

Model = type[SyncableModel]


@dataclass(frozen=True)
class Component:
    """Models that have to be deserialized together, because they refer to each other.

    Nearly always one model. Proxies of one tree (Kolibri's collections) share a component.
    """

    models: tuple[Model, ...]
    """Models in Morango's registry order."""
    level: int
    """Components of one level don't depend on each other; each depends on lower levels only."""
    is_tree: bool
    """True if records point at parents within the component (Morango's ``_self_ref_fk``)."""

    @property
    def model_names(self) -> list[str]:
        return [model.morango_model_name for model in self.models]


@lru_cache(maxsize=32)
def components(profile: str) -> tuple[Component, ...]:
    """Return the profile's models, grouped and sorted so that dependencies come first.

    Two models are in one component when each depends on the other, however indirectly.
    """
    registered = registered_models(profile)
    needs = {model: list(dependencies(model, registered)) for model in registered}
    groups: dict[Model, tuple[Model, ...]] = {}
    for group in map(tuple, strongly_connected_components(needs)):
        groups.update(dict.fromkeys(group, group))
    outside = {
        group: {groups[need] for member in group for need in needs[member]} - {group}
        for group in groups.values()
    }
    level = levels(outside)
    unique = dict.fromkeys(groups[model] for model in registered)
    found = [Component(group, level[group], any(map(self_referential_fk, group))) for group in unique]
    return tuple(sorted(found, key=lambda component: component.level))


def exclusive_models(profile: str) -> frozenset[Model]:
    """Return the profile's models that are exclusive, or refer to such in a cycle.

    No two batches may hold records of these models at the same time.
    """
    return _with_cycles(profile, exclusive_among(_all_models(profile)))


@lru_cache(maxsize=32)
def _all_models(profile: str) -> tuple[Model, ...]:
    return tuple(model for component in components(profile) for model in component.models)


@lru_cache(maxsize=32)
def _with_cycles(profile: str, exclusive: frozenset[Model]) -> frozenset[Model]:
    found = (each.models for each in components(profile) if not exclusive.isdisjoint(each.models))
    return frozenset(chain.from_iterable(found))


def exclusive_names(profile: str) -> list[str]:
    """Return the names of `exclusive_models`."""
    return sorted(model.morango_model_name for model in exclusive_models(profile))


@lru_cache(maxsize=32)
def component_positions(profile: str) -> Mapping[str, int]:
    """Return the index of each model's component in `components`, by the model's name."""
    return {
        name: index for index, component in enumerate(components(profile)) for name in component.model_names
    }


@lru_cache(maxsize=32)
def cyclic_foreign_keys(profile: str) -> Mapping[Model, tuple[ForeignKey[Any, Any], ...]]:
    """Return the foreign keys of each model that are part of a cycle of models; nearly always none.

    The key that points at a record's tree parent isn't among them.
    """
    found: dict[Model, tuple[ForeignKey[Any, Any], ...]] = {}
    for component in components(profile):
        tables = {table for model in component.models for table in _tables(model)}
        for model in component.models:
            traits = traits_of(model)
            found[model] = tuple(
                field
                for field in traits.foreign_keys
                if target_model(field)._meta.concrete_model in tables
                and field is not traits.tree_key
                and not field.remote_field.parent_link
            )
    return found


@once_per_model
def parent_names(model: Model) -> frozenset[str]:
    """Return the names of models that the tree parents of a model's records can be of.

    Morango looks for parents among the records that it comes to together: with each tree model, its
    own and those of its ``morango_model_dependencies``.
    """
    names: set[str] = set()
    for other in registered_models(model.morango_profile):
        together = (other, *other.morango_model_dependencies)
        if model in together and self_referential_fk(other):
            names.update(each.morango_model_name for each in together)
    return frozenset(names)


NAMED = "morango_model_dependencies"


def dependencies(model: Model, registered: Sequence[Model]) -> dict[Model, list[str]]:
    """Return the registered models that share a table with a foreign key's target, or are named as
    dependencies.

    A target need not be registered itself: Kolibri's point at ``Collection``, four proxies of
    which are.

    :returns: names of the foreign keys, and `NAMED`, by model
    """
    found: dict[Model, list[str]] = {}
    for other in registered:
        tables = _tables(other)
        by = [key.name for key in traits_of(model).foreign_keys if _table_of_target(key) in tables]
        by += [NAMED] if other in model.morango_model_dependencies else []
        if by:
            found[other] = by
    return found


def _table_of_target(key: ForeignKey[Any, Any]) -> type[models.Model] | None:
    return target_model(key)._meta.concrete_model


def _tables(model: Model) -> set[type[models.Model] | None]:
    """Return the models of the tables that a record of `model` has rows in."""
    return {model._meta.concrete_model, *model._meta.get_parent_list()}


def parents_first(carriers: Iterable[DeserializeTask]) -> tuple[list[DeserializeTask], list[DeserializeTask]]:
    """Order one tree's carriers and link each to its parent, when that is among them.

    :returns: the ordered carriers, and those that hang on a cycle and so have no place in an order
    """
    by_id = {carrier.store.id: carrier for carrier in carriers}
    children: dict[str, list[DeserializeTask]] = {}
    ordered: list[DeserializeTask] = []
    for carrier in by_id.values():
        carrier.parent = by_id.get(carrier.store._self_ref_fk)
        if carrier.parent is None:
            ordered.append(carrier)
        else:
            children.setdefault(carrier.parent.store.id, []).append(carrier)
    for carrier in ordered:  # grows while it is walked: breadth first
        ordered.extend(children.get(carrier.store.id, ()))
    placed = {carrier.store.id for carrier in ordered}
    return ordered, [carrier for carrier in by_id.values() if carrier.store.id not in placed]
