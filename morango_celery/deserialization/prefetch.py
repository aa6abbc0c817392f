"""Targets of foreign keys, loaded for many instances at once when a model's own code follows one."""

from __future__ import annotations

import weakref
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any, TypeAlias, cast

from django.core.exceptions import ValidationError
from django.db import DataError, connection
from django.db.models import ForeignKey, Model
from morango.models.core import SyncableModel
from morango.models.fields.uuids import UUIDField
from typing_extensions import override

from morango_celery.db.errors import is_unreadable
from morango_celery.deserialization.conversions import is_uuid
from morango_celery.deserialization.instances import read_instances
from morango_celery.deserialization.issuer import OUR_STATEMENT
from morango_celery.deserialization.model_code import READING, mentions, verb
from morango_celery.deserialization.traits import tables_of, target_model
from morango_celery.django_compat import cache_name, related_instances, replace_related_instances

AnyKey: TypeAlias = "ForeignKey[Any, Any]"
Target = tuple[type[Model], str]
"""Model, and the attribute that foreign keys to it refer to."""


@dataclass(frozen=True)
class _Reference:
    table: Target
    """Target with the concrete model."""
    by_id: bool
    """True if its values are ids as Morango writes them, or wrong."""


@cache
def _references(model: type[Model]) -> dict[str, _Reference]:
    """Return the references of a model's foreign keys, by the names of their columns."""
    found = {}
    for field in model._meta.fields:
        if isinstance(field, ForeignKey):
            column = field.target_field
            concrete = cast(type[Model], target_model(field)._meta.concrete_model)
            found[field.attname] = _Reference((concrete, column.attname), type(column) is UUIDField)
    return found


def target_table(field: AnyKey) -> Target:
    """Return the target of a foreign key, with the concrete model."""
    return _references(field.model)[field.attname].table


def target_key(field: AnyKey, raw: Any) -> Any:
    """Return the value as the target's column holds it; None for null and for values that no column could
    hold."""
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


class LazyPrefetcher:
    """Loader of foreign keys' targets. When one instance follows a key, it loads the targets of all its
    peers.

    Peers are the instances of the same class that were brought here or found here: so ``self.user.facility``
    costs two queries, for one record or for a thousand.

    A row that the group is yet to write is loaded at each look, and kept by nobody but the looking record.
    """

    def __init__(self) -> None:
        # Weak: a record that is tried again gets another instance, and may be tried often
        self._peers: dict[type[Model], list[weakref.ref[Model]]] = {}
        self._asked: dict[tuple[type[Model], str], int] = {}
        """Number of peers, by model and key, with targets that have been looked up."""
        self._deferred: dict[tuple[type[Model], str], set[Any]] = {}
        """Values of peers that referred to rows yet to be written, when they were looked up."""
        self._found: dict[Target, dict[Any, Model | None]] = {}
        """None where there is no such row, or none that Python can hold."""
        self._found_in: set[str] = set()
        """The names of the tables that these are rows of."""
        self._unwritten: set[str] = set()
        self._written_to: set[str] = set()
        """The names of the tables that these are to be rows of."""
        self.is_loading = False
        """True while rows are being looked up that are in the database already."""

    def track(self, instance: Model) -> None:
        """Let `instance` find the targets of its foreign keys here."""
        peer = weakref.ref(instance)
        self._peers.setdefault(type(instance), []).append(peer)
        replace_related_instances(instance, _PrefetchingFieldsCache(self, peer))

    @staticmethod
    def detach(instance: Model) -> None:
        """Let `instance` find each row that it refers to as the database has it from now on."""
        cached = related_instances(instance)
        if isinstance(cached, _PrefetchingFieldsCache):
            cached.detach()

    def expect(self, model: type[SyncableModel], store_id: str) -> None:
        """Note that a record is yet to be written."""
        self._unwritten.add(store_id)
        self._written_to |= tables_of(model)

    @property
    def expects(self) -> bool:
        """Return True if records are yet to be written, so that it matters when they are."""
        return bool(self._unwritten)

    def written(self, store_id: str) -> None:
        """Note that queries find a record as this batch has it from now on."""
        self._unwritten.discard(store_id)

    def follow(self, instance: Model, name: str) -> tuple[Model, bool]:
        """Return the target of the foreign key `name` of `instance`, and True if that may be kept.

        :raises KeyError: it can't be had here; Django looks itself then, and words the error
        """
        model = type(instance)
        field = _foreign_keys(model)[name]
        value = target_key(field, getattr(instance, field.attname))
        target = target_model(field), field.target_field.attname
        found = self._found.setdefault(target, {})
        lasting = value is None or not self._may_change(field, value)
        if not lasting:
            if instance._state.adding:
                raise KeyError(name)
            found = dict(self._rows(field, [value]))
        elif value is not None and value not in found:
            self._load(field, found, {value, *self._wanted(model, name, field)} - found.keys())
        related = found.get(value)
        if related is None:
            raise KeyError(name)
        if not field.remote_field.multiple:  # one to one: as Django does, for the way back
            field.remote_field.set_cached_value(related, instance)
        return related, lasting

    def _may_change(self, field: AnyKey, value: Any) -> bool:
        """Return True if a row is yet to be written, or may be found by another value then."""
        if target_model(field)._meta.db_table not in self._written_to:
            return False
        return value in self._unwritten or not field.target_field.primary_key

    def _wanted(self, model: type[Model], name: str, field: AnyKey) -> set[Any]:
        """Return the values of all peers, without those of rows that are yet to be written."""
        peers = self._peers.get(model, [])
        others = peers[self._asked.get((model, name), 0) :]
        self._asked[model, name] = len(peers)
        alive = [peer for reference in others if (peer := reference()) is not None]
        values = {target_key(field, getattr(peer, field.attname)) for peer in alive} - {None}
        values |= self._deferred.pop((model, name), set())
        if deferred := {value for value in values if self._may_change(field, value)}:
            self._deferred[model, name] = deferred
        return values - deferred

    def _load(self, field: AnyKey, found: dict[Any, Model | None], values: set[Any]) -> None:
        self.is_loading = True
        try:
            rows = list(self._rows(field, list(values)))
        finally:
            self.is_loading = False
        found.update(dict.fromkeys(values))
        self._found_in |= tables_of(target_model(field))
        for value, related in rows:
            found[value] = related
            self.track(related)

    @staticmethod
    def _rows(field: AnyKey, values: Sequence[Any]) -> Iterator[tuple[Any, Model]]:
        attname = field.target_field.attname
        for related in _readable(target_model(field), attname, values):
            yield getattr(related, attname), related

    def before_statement(self, statement: str) -> None:
        """Forget all targets if a statement of a model's own code writes their tables, or undoes writing."""
        kind = verb(statement)
        if kind == "ROLLBACK" or (kind not in READING and mentions(statement, self._found_in)):
            self.forget_found()

    def forget_found(self) -> None:
        """Forget all targets: they are gone, or may have changed."""
        self._found.clear()
        self._found_in.clear()

    def forget_found_of(self, models: Iterable[type[SyncableModel]]) -> None:
        """Forget all targets if a group is to write rows of such models."""
        if any(not self._found_in.isdisjoint(tables_of(model)) for model in models):
            self.forget_found()

    def forget(self) -> None:
        """Forget all instances."""
        self.forget_found()
        self.forget_group()

    def forget_group(self) -> None:
        """Forget the instances that follow foreign keys, and keep the targets that were found."""
        self._peers.clear()
        self._asked.clear()
        self._deferred.clear()
        self._unwritten.clear()
        self._written_to.clear()


class _PrefetchingFieldsCache(dict[str, Any]):
    """Cache of an instance's related instances, which has `LazyPrefetcher` find absent ones."""

    __slots__ = ("_instance", "_prefetched", "_prefetcher")

    def __init__(self, prefetcher: LazyPrefetcher, instance: weakref.ref[Model]) -> None:
        """:param instance: owner of this cache; weak, or only a garbage collection would find that circle"""
        self._prefetcher: LazyPrefetcher | None = prefetcher
        self._instance = instance
        self._prefetched: set[str] = set()

    def __missing__(self, name: str) -> Model:
        instance = self._instance()
        if self._prefetcher is None or instance is None:
            raise KeyError(name)
        related, lasting = self._prefetcher.follow(instance, name)
        if lasting:
            self[name] = related
            self._prefetched.add(name)
        return related

    def detach(self) -> None:
        """Leave it to Django to follow the instance's foreign keys, once more for targets that were found
        here."""
        for name in self._prefetched:
            self.pop(name, None)
        self._prefetcher = None

    @override
    def __delitem__(self, name: str) -> None:
        super().__delitem__(name)
        self._prefetcher = None  # who drops an instance, as refresh_from_db() does, wants a newer one


@cache
def _foreign_keys(model: type[Model]) -> dict[str, AnyKey]:
    """Return a model's foreign keys by their names in an instance's cache.

    Links to a parent's table are left out: Django makes that instance from the child's.
    """
    return {
        cache_name(field): field
        for field in model._meta.fields
        if isinstance(field, ForeignKey) and not field.remote_field.parent_link
    }


def _readable(model: type[Model], attname: str, values: Sequence[Any]) -> Iterator[Model]:
    """Yield the instances with these values. Instances that Python can't hold, as of a year beyond 9999, are
    left out."""
    try:
        with OUR_STATEMENT:
            found = read_instances(model, attname, values)
        yield from found
    except (ValueError, OverflowError, DataError) as error:
        if not is_unreadable(error):
            raise
        if len(values) > 1:
            for half in (values[: len(values) // 2], values[len(values) // 2 :]):
                yield from _readable(model, attname, half)
