"""Source of app rows under a sync filter."""

from __future__ import annotations

from collections.abc import Iterator
from inspect import getattr_static
from typing import Any

from django.db.models import (
    Field,
    Model,
    Q,
    QuerySet,
    prefetch_related_objects,
    signals,
)
from morango.models.core import SyncableModel
from typing_extensions import override

from morango_celery.django_compat import prefetched_relations
from morango_celery.reading.attributes import has_plain_access, is_plain_attribute
from morango_celery.reading.cursors import stream
from morango_celery.reading.partitions import MorangoSource
from morango_celery.reading.sizes import CHUNK_BYTES, is_unbounded, rows_at_a_time
from morango_celery.serialization.columns import has_large, selected
from morango_celery.serialization.task import AppRow, SerializeTask, size_of
from morango_celery.stream import Source, chunked_by_weight
from morango_celery.upstream import self_referential_fk

CHUNK_ROWS = 500
"""Rows on their way at a time. More take memory, and no less time: the processor's caches are small too."""


class AppModelSource(MorangoSource[SerializeTask]):
    """Stream of a carrier for each app row.

    Where a model serializes as Morango does, no instances are made. With a partition order, SQLite sorts
    whole rows, in the memory of this process.
    """

    partition_field = "_morango_partition"

    @override
    def model_queryset(self, model: type[SyncableModel]) -> QuerySet[Any]:
        queryset: QuerySet[Any] = model.syncing_objects.all()
        return queryset.filter(_morango_dirty_bit=True) if self.dirty_only else queryset

    @override
    def stream_for_filter(self, partition_condition: Q | None) -> Iterator[SerializeTask]:
        for queryset in self.querysets(partition_condition):
            yield from RowSource(queryset).stream()


class RowSource(Source[SerializeTask]):
    """Stream of a carrier for each row of a query of one model."""

    def __init__(self, queryset: QuerySet[Any]) -> None:
        self.queryset = queryset

    @override
    def stream(self) -> Iterator[SerializeTask]:
        return (_rows if _is_plain(self.queryset.model) else _instances)(self.queryset)


def _rows(queryset: QuerySet[Any]) -> Iterator[SerializeTask]:
    model: type[SyncableModel] = queryset.model
    left_out = {*model.morango_fields_not_to_serialize, *model._morango_internal_fields_not_to_serialize}
    names = tuple(field.attname for field in model._meta.concrete_fields if field.attname not in left_out)
    parent = self_referential_fk(model)
    needed = ["id", "_morango_partition", "_morango_source_id", *([parent] if parent else [])]
    columns = [*names, *(name for name in needed if name in left_out)]
    id_at, partition_at, source_at, *parent_at = map(columns.index, needed)
    fields: list[Field[Any, Any]] = [model._meta.get_field(name) for name in columns]
    unbounded = [place for place, field in enumerate(fields) if is_unbounded(field)]
    large, whole = has_large(fields), [selected(field, however_large=True) for field in fields]
    values = [*map(selected, fields), *([] if large is None else [large])]
    chunk_rows = rows_at_a_time(CHUNK_ROWS, any_may_be_large=False)
    for row in stream(queryset.values_list(*values), chunk_rows):
        if large is not None and row[-1]:
            row = model._base_manager.filter(pk=row[id_at]).values_list(*whole).get()
        obj = AppRow(
            row[id_at],
            row[partition_at],
            row[source_at],
            row[parent_at[0]] or "" if parent_at else "",
            names,
            row[: len(names)],
            sum(map(size_of, [row[place] for place in unbounded])),
        )
        yield SerializeTask(model, obj)


def _instances(queryset: QuerySet[Any]) -> Iterator[SerializeTask]:
    model: type[SyncableModel] = queryset.model
    parent = self_referential_fk(model)
    for instance in _prefetched(queryset):
        try:
            data = instance.serialize()
        except Exception as error:  # any error of a model's own code gets the record's name
            error.add_note(f"While {model._meta.label} {instance.pk} was being serialized.")
            raise
        obj = AppRow(
            instance.id,
            instance._morango_partition,
            instance._morango_source_id,
            "" if parent is None else getattr(instance, parent) or "",
            tuple(data),
            tuple(data.values()),
            sum(map(size_of, data.values())),
        )
        yield SerializeTask(model, obj)


def _prefetched(queryset: QuerySet[Any]) -> Iterator[Any]:
    """Yield the instances of a query, with the relations that its manager prefetches."""
    lookups = prefetched_relations(queryset)
    may_be_large = any(map(is_unbounded, queryset.model._meta.concrete_fields))
    rows = stream(queryset, rows_at_a_time(CHUNK_ROWS, any_may_be_large=may_be_large))
    if not lookups:
        yield from rows
        return
    sized = ((row, _size_of_instance(row)) for row in rows)
    for chunk in chunked_by_weight(sized, CHUNK_ROWS, CHUNK_BYTES):
        prefetch_related_objects(chunk, *lookups)
        yield from chunk


def _size_of_instance(instance: Any) -> int:
    return sum(map(size_of, vars(instance).values()))


def _is_plain(model: type[SyncableModel]) -> bool:
    """Return True if ``serialize()`` gives the very values that are read from the database."""
    fields = model._meta.concrete_fields
    return not has_own_code(model) and all(_is_plain_field(model, field) for field in fields)


def has_own_code(model: type[SyncableModel]) -> bool:
    """Return True if others' code runs while rows are serialized, other than for a field's value."""
    is_observed = signals.pre_init.has_listeners(model) or signals.post_init.has_listeners(model)
    return (
        is_observed
        or model.serialize is not SyncableModel.serialize
        or not has_plain_access(model)
        or getattr_static(model, "from_db") is not getattr_static(Model, "from_db")
    )


def _is_plain_field(model: type[SyncableModel], field: Field[Any, Any]) -> bool:
    return (
        type(field).value_from_object is Field.value_from_object
        and not getattr(field, "morango_serialize_to_string", False)
        and is_plain_attribute(model, field)
    )
