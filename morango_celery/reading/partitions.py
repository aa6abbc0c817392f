"""Sources of the records of a profile: rows of the Store, or of the app tables, under a sync filter."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator, Sequence
from functools import cached_property
from typing import Any, ClassVar, TypeVar

from django.db.models import Q, QuerySet
from django.db.models.expressions import OrderBy
from morango.models.certificates import Filter
from morango.models.core import SyncableModel
from typing_extensions import override

from morango_celery.reading.filters import PartitionOrder, partition_order, under_filter
from morango_celery.stream import Source
from morango_celery.upstream import registered_models

CHUNK_ROWS = 2000
"""Rows that a source holds in memory at a time."""


class SourceTask(ABC):
    """Carrier of one record, on its way from a source to a sink."""

    __slots__ = ()

    @property
    @abstractmethod
    def id(self) -> str:
        """Return the record's id: 32 hex digits."""


Task = TypeVar("Task", bound=SourceTask)


class MorangoSource(Source[Task]):
    """Stream of a profile's records: model by model in foreign key order, then by prefix and partition.

    Memory is that of one chunk of rows. One query per model reads all prefixes of the filter, so that each
    record comes once, and no set of ids has to be kept.
    """

    partition_field: ClassVar[str]

    def __init__(
        self,
        profile: str,
        sync_filter: Filter | None = None,
        dirty_only: bool = True,
        partition_order: PartitionOrder | None = "asc",
        *,
        models: Iterable[type[SyncableModel]] | None = None,
    ) -> None:
        """
        :param sync_filter: None for the whole profile
        :param dirty_only: only records with their dirty bit set
        :param partition_order: "asc" or "desc"; None for rows as they come, without sorting
        :param models: only these, in this order; all of the profile when None
        :raises ValueError: any other order
        """
        if partition_order not in ("asc", "desc", None):
            raise ValueError(f'partition_order is "asc", "desc" or None, not {partition_order!r}.')
        self.profile = profile
        self.sync_filter = sync_filter
        self.dirty_only = dirty_only
        self.partition_order = partition_order
        self._models = models

    @cached_property
    def condition(self) -> Q:
        """Condition for rows under the filter."""
        return under_filter(self.partition_field, self.sync_filter)

    def prefix_conditions(self) -> Iterator[Q | None]:
        """Yield the condition for all prefixes of the filter; None without a filter."""
        yield None if self.sync_filter is None else self.condition

    @override
    def stream(self) -> Iterator[Task]:
        """Yield a carrier for each record under the filter."""
        for condition in self.prefix_conditions():
            yield from self.stream_for_filter(condition)

    @abstractmethod
    def stream_for_filter(self, partition_condition: Q | None) -> Iterator[Task]:
        """Yield a carrier for each record that fulfils a condition, or of the profile."""

    def ordering(self) -> Sequence[str | OrderBy]:
        """Return the order of a model's rows."""
        if self.partition_order is None:
            return []
        return partition_order(self.partition_field, self.sync_filter, self.partition_order)

    def models(self) -> Iterable[type[SyncableModel]]:
        """Return the models to stream; in foreign key order, if nothing else was asked for."""
        return registered_models(self.profile) if self._models is None else self._models

    def querysets(self, partition_condition: Q | None = None) -> Iterator[QuerySet[Any]]:
        """Yield a query for each model, in the order of the stream.

        :param partition_condition: that of the whole filter when None
        """
        return (self.queryset(model, partition_condition) for model in self.models())

    def queryset(self, model: type[SyncableModel], partition_condition: Q | None = None) -> QuerySet[Any]:
        """Return the query behind one model's part of the stream.

        :param partition_condition: that of the whole filter when None
        """
        condition = self.condition if partition_condition is None else partition_condition
        return self.model_queryset(model).filter(condition).order_by(*self.ordering())

    @abstractmethod
    def model_queryset(self, model: type[SyncableModel]) -> QuerySet[Any]:
        """Return the query for all rows of one model, in any partition."""
