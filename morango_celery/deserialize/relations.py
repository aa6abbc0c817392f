"""What foreign keys refer to, and the instances there, for models' own code, which may follow them."""

from __future__ import annotations

import weakref
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any, TypeAlias, cast

from django.core.exceptions import ValidationError
from django.db import connection
from django.db.models import ForeignKey, Model
from morango.models.fields.uuids import UUIDField

from morango_celery.deserialize.conversions import is_uuid
from morango_celery.deserialize.traits import target_model

AnyKey: TypeAlias = "ForeignKey[Any, Any]"
Target = tuple[type[Model], str]
"""A model, and the attribute that foreign keys to it refer to."""


@dataclass(frozen=True)
class _Reference:
    table: Target
    """With the concrete model."""
    by_id: bool
    """Whether its values are ids as Morango writes them, or wrong."""


@cache
def _references(model: type[Model]) -> dict[str, _Reference]:
    """Of each foreign key's column."""
    found = {}
    for field in model._meta.fields:
        if isinstance(field, ForeignKey):
            column = field.target_field
            concrete = cast(type[Model], target_model(field)._meta.concrete_model)
            found[field.attname] = _Reference((concrete, column.attname), type(column) is UUIDField)
    return found


def target_table(field: AnyKey) -> Target:
    """What a foreign key refers to, with the concrete model."""
    return _references(field.model)[field.attname].table


def target_key(field: AnyKey, raw: Any) -> Any:
    """The value as the target's column holds it; None for null and for what no column could hold."""
    if raw is None:
        return None
    if _references(field.model)[field.attname].by_id and is_uuid(raw):
        return raw
    try:
        value = field.target_field.get_db_prep_value(raw, connection)
        hash(value)
    except (ValueError, TypeError, LookupError, AttributeError, OverflowError, ValidationError):
        return None
    return value


class Relations:
    """Loads what a foreign key refers to when one instance follows it, for all of its peers at once.

    Peers are the instances of the same class that were brought here or found here: so ``self.user.facility``
    costs two queries, for one record or for a thousand.
    """

    def __init__(self) -> None:
        # Weak, for a record whose first attempt was rolled back gets another instance, and may do so often
        self._peers: dict[type[Model], list[weakref.ref[Model]]] = {}
        self._asked: dict[tuple[type[Model], str], int] = {}
        """For how many of the peers it was looked up what a foreign key refers to."""
        self._found: dict[Target, dict[Any, Model | None]] = {}
        """None where there is no such row, or none that Python can hold."""

    def bring(self, instance: Model) -> None:
        """Let `instance` find here what it refers to."""
        peer = weakref.ref(instance)
        self._peers.setdefault(type(instance), []).append(peer)
        instance._state.fields_cache = _Followed(self, peer)

    def follow(self, instance: Model, name: str) -> Model:
        """What the foreign key `name` of `instance` refers to.

        :raises KeyError: it isn't to be had here; Django looks itself then, and words the error
        """
        model = type(instance)
        field = _foreign_keys(model)[name]
        value = target_key(field, getattr(instance, field.attname))
        found = self._found.setdefault((target_model(field), field.target_field.attname), {})
        if value is not None and value not in found:
            peers = self._peers.get(model, [])
            others = peers[self._asked.get((model, name), 0) :]
            self._asked[model, name] = len(peers)
            alive = [peer for reference in others if (peer := reference()) is not None]
            values = {value, *(target_key(field, getattr(peer, field.attname)) for peer in alive)}
            self._load(field, found, values - found.keys() - {None})
        related = found.get(value)
        if related is None:
            raise KeyError(name)
        if not field.remote_field.multiple:  # one to one: as Django does, for the way back
            field.remote_field.set_cached_value(related, instance)
        return related

    def _load(self, field: AnyKey, found: dict[Any, Model | None], values: set[Any]) -> None:
        found.update(dict.fromkeys(values))
        attname = field.target_field.attname
        for related in _readable(target_model(field), attname, list(values)):
            found[getattr(related, attname)] = related
            self.bring(related)

    def forget(self) -> None:
        """Let go of all instances."""
        self._peers.clear()
        self._asked.clear()
        self._found.clear()


class _Followed(dict[str, Any]):
    """An instance's cache of related instances, which has `Relations` find those that it lacks."""

    __slots__ = ("_instance", "_relations")

    def __init__(self, relations: Relations, instance: weakref.ref[Model]) -> None:
        """
        :param instance: whose cache this is; weak, or only a garbage collection would find that circle
        """
        self._relations: Relations | None = relations
        self._instance = instance

    def __missing__(self, name: str) -> Model:
        instance = self._instance()
        if self._relations is None or instance is None:
            raise KeyError(name)
        related = self[name] = self._relations.follow(instance, name)
        return related

    def __delitem__(self, name: str) -> None:
        super().__delitem__(name)
        self._relations = None  # who drops an instance, as refresh_from_db() does, wants a newer one


@cache
def _foreign_keys(model: type[Model]) -> dict[str, AnyKey]:
    """By the name in an instance's cache. Of a parent's table, Django makes the instance from the child's."""
    return {
        field.get_cache_name(): field
        for field in model._meta.fields
        if isinstance(field, ForeignKey) and not field.remote_field.parent_link
    }


def _readable(model: type[Model], attname: str, values: Sequence[Any]) -> Iterator[Model]:
    """The instances with these values, but for those with what Python can't hold, as a year beyond 9999."""
    try:
        yield from list(model._base_manager.filter(**{f"{attname}__in": values}))
    except (ValueError, OverflowError):
        if len(values) > 1:
            for half in (values[: len(values) // 2], values[len(values) // 2 :]):
                yield from _readable(model, attname, half)
