"""Groups: the carriers of one component of models, on their way together."""

from __future__ import annotations

from django.core.exceptions import ValidationError
from morango.errors import MorangoDirtyParent, MorangoMissingParent
from typing_extensions import override

from morango_celery.deserialization.context import BatchContext
from morango_celery.deserialization.task import DeserializeTask
from morango_celery.stream import Transform

Group = list[DeserializeTask]


class GroupTransform(Transform[Group, Group]):
    """Operator that changes the carriers of a group in place."""

    def __init__(self, context: BatchContext) -> None:
        self.context = context

    @override
    def transform(self, item: Group) -> Group:
        self.update(item)
        return item

    def update(self, group: Group) -> None:
        raise NotImplementedError


def to_save(group: Group) -> Group:
    """Return the carriers that are neither in error nor to be deleted."""
    return [carrier for carrier in group if not carrier.errors and not carrier.store.deleted]


def writable(group: Group) -> Group:
    """Return the carriers to save that nothing is known against."""
    return [c for c in to_save(group) if c.propagated_deletion is None and (c.is_parsed or c.is_deferred)]


def mark_local_edits(carriers: Group, skipped_ids: set[str]) -> None:
    """Note which carriers were skipped because their app rows carry a local edit.

    :param skipped_ids: the ids of such rows
    """
    for carrier in carriers:
        carrier.has_local_edit = carrier.store.id in skipped_ids


def dirty_parent() -> Exception:
    """Return Morango's error for a tree's record with a parent that was not deserialized."""
    error: Exception = MorangoDirtyParent("Parent is dirty; could not deserialize.")
    return error


def missing_parent() -> Exception:
    """Return Morango's error for a tree's record with a parent that can't be found."""
    error: Exception = MorangoMissingParent("Parent does not exist in Store; could not deserialize.")
    return error


def target_failed(target_name: str, store_id: object) -> ValidationError:
    """Return Morango's error for a record that refers to a failed one.

    :param target_name: verbose name of the foreign key's target model
    """
    return ValidationError(f"{target_name} with id {store_id} failed to deserialize")
