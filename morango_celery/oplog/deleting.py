"""Deleting objects in bulk, with Django's cascade."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any

from django.db import DEFAULT_DB_ALIAS
from django.db.models import Model, QuerySet
from django.db.models.deletion import Collector, get_candidate_relations_to_delete

from morango_celery.django_compat import field_updates
from morango_celery.oplog.meta import Key, concrete, key_of, rows


class OrderDependencyError(Exception):
    """A deletion reaches an object that was saved in the same batch. Only their order decides the result."""


def delete_objects(model: type[Model], keys: Collection[Any], saved: Mapping[Key, object]) -> None:
    """Delete objects of one model, as their ``delete()`` would. Missing ones are ignored.

    :param saved: objects that were written in the same batch
    :raises OrderDependencyError: the cascade reaches one of these; nothing was deleted
    :raises ProtectedError, RestrictedError: another row forbids it; nothing was deleted
    """
    found = rows(model).filter(pk__in=keys)
    collector = Collector(using=DEFAULT_DB_ALIAS)
    collector.collect(found)
    if saved and _touches(collector, found, saved):
        raise OrderDependencyError(f"The deletion of {model._meta.label} reaches an object saved with it.")
    collector.delete()


def _touches(collector: Any, deleted: QuerySet[Any], saved: Mapping[Key, object]) -> bool:
    # The stubs know none of the collector's attributes
    by_model: dict[type[Model], list[Any]] = {}
    for model, key in saved:
        by_model.setdefault(model, []).append(key)
    updates = field_updates(collector)
    updated = {(type(instance), instance.pk) for instance in updates.instances}
    collected = {
        (model, instance.pk) for model, instances in collector.data.items() for instance in instances
    }
    if any(key_of(model, pk) in saved for model, pk in collected | updated):
        return True
    return any(
        related.filter(pk__in=by_model[concrete(related.model)]).exists()
        for related in (*collector.fast_deletes, *updates.queries)
        if related is not deleted and concrete(related.model) in by_model
    )


def affects_others(model: type[Model]) -> bool:
    """Return True if deleting an object may change others."""
    meta = model._meta
    return (
        bool(meta.parents)
        or any(True for _ in get_candidate_relations_to_delete(meta))
        or any(hasattr(field, "bulk_related_objects") for field in meta.private_fields)
    )
