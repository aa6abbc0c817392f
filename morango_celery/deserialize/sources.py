"""Where carriers come from: rows of the Store, or of the app tables, under a sync filter."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterable, Iterator
from typing import Any, ClassVar, TypeVar

from django.db.models import Q, QuerySet
from morango.models.certificates import Filter
from morango.models.core import Store, SyncableModel

from morango_celery.deserialize.cursors import stream
from morango_celery.deserialize.filters import PartitionOrder, prefix_conditions
from morango_celery.deserialize.task import DeserializeTask
from morango_celery.stream import Source
from morango_celery.upstream import registered_models

Item = TypeVar("Item")

CHUNK_ROWS = 2000
"""Rows that a source holds in memory at a time."""


class PartitionedSource(Source[Item]):
    """Streams the records of a profile: model by model in foreign key order, and within a model
    prefix by prefix and partition by partition.

    Memory is that of one chunk of rows. One query per model and prefix.
    """

    partition_field: ClassVar[str]

    def __init__(
        self,
        profile: str,
        sync_filter: Filter | None = None,
        dirty_only: bool = True,
        partition_order: PartitionOrder = "asc",
    ) -> None:
        """
        :param sync_filter: None for the whole profile
        :param dirty_only: only records whose dirty bit is set
        :param partition_order: "asc" or "desc"
        :raises ValueError: any other order
        """
        if partition_order not in ("asc", "desc"):
            raise ValueError(f'partition_order is "asc" or "desc", not {partition_order!r}.')
        self.profile = profile
        self.sync_filter = sync_filter
        self.dirty_only = dirty_only
        self.partition_order = partition_order

    def prefix_conditions(self) -> Iterator[Q]:
        """One condition per prefix, in the source's order; no row matches two of them."""
        return prefix_conditions(self.partition_field, self.sync_filter, self.partition_order)

    def models(self) -> Iterable[type[SyncableModel]]:
        """The models to stream, in foreign key order."""
        return registered_models(self.profile)

    def querysets(self) -> Iterator[QuerySet[Any]]:
        """The queries behind the stream, in its order."""
        sign = "" if self.partition_order == "asc" else "-"
        for model in self.models():
            for condition in self.prefix_conditions():
                yield self.model_queryset(model).filter(condition).order_by(sign + self.partition_field)

    @abstractmethod
    def model_queryset(self, model: type[SyncableModel]) -> QuerySet[Any]:
        """All rows of one model that this source is about, whatever their partition."""


class AppModelSource(PartitionedSource[SyncableModel]):
    """Streams app model instances."""

    partition_field = "_morango_partition"

    def model_queryset(self, model: type[SyncableModel]) -> QuerySet[Any]:
        queryset: QuerySet[Any] = model.syncing_objects.all()
        return queryset.filter(_morango_dirty_bit=True) if self.dirty_only else queryset

    def stream(self) -> Iterator[SyncableModel]:
        for queryset in self.querysets():
            yield from stream(queryset, CHUNK_ROWS)


class StoreModelSource(PartitionedSource[DeserializeTask]):
    """Streams a carrier per Store record."""

    partition_field = "partition"

    def __init__(
        self,
        profile: str,
        sync_filter: Filter | None = None,
        dirty_only: bool = True,
        partition_order: PartitionOrder = "asc",
        *,
        exclude_erroring: bool = True,
        models: Iterable[type[SyncableModel]] | None = None,
    ) -> None:
        """
        :param exclude_erroring: leave out records that carry a ``deserialization_error``
        :param models: only these, in this order; all of the profile when None
        """
        super().__init__(profile, sync_filter, dirty_only, partition_order)
        self.exclude_erroring = exclude_erroring
        self._models = models

    def models(self) -> Iterable[type[SyncableModel]]:
        return super().models() if self._models is None else self._models

    def records(self) -> QuerySet[Any]:
        """All records this source is about, whatever their model and partition."""
        queryset: QuerySet[Any] = Store.objects.filter(profile=self.profile)
        if self.dirty_only:
            queryset = queryset.filter(dirty_bit=True)
        if self.exclude_erroring:
            # Morango wrote "" for "no error" before the column became nullable
            queryset = queryset.filter(Q(deserialization_error="") | Q(deserialization_error=None))
        return queryset

    def model_queryset(self, model: type[SyncableModel]) -> QuerySet[Any]:
        return self.records().filter(model_name=model.morango_model_name)

    def stream(self) -> Iterator[DeserializeTask]:
        for queryset in self.querysets():
            yield from map(DeserializeTask, stream(queryset, CHUNK_ROWS))

    def ids(self) -> Iterator[str]:
        """The records' ids alone, in the same order; ``serialized`` isn't fetched."""
        queryset: Any
        for queryset in self.querysets():
            yield from stream(queryset.char_ids_list(), CHUNK_ROWS)
