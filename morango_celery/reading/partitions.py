"""Rows of the Store, or of the app tables, under a sync filter."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterable, Iterator, Sequence
from functools import cached_property
from typing import Any, ClassVar, TypeVar

from django.db.models import Q, QuerySet
from django.db.models.expressions import OrderBy
from morango.models.certificates import Filter
from morango.models.core import SyncableModel

from morango_celery.reading.filters import PartitionOrder, partition_order, under_filter
from morango_celery.stream import Source
from morango_celery.upstream import registered_models

Item = TypeVar("Item")

CHUNK_ROWS = 2000
"""Rows that a source holds in memory at a time."""


class PartitionedSource(Source[Item]):
    """Streams the records of a profile: model by model in foreign key order, and within a model
    prefix by prefix and partition by partition.

    Memory is that of one chunk of rows. One query per model, however many prefixes the filter has.
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
        :param dirty_only: only records whose dirty bit is set
        :param partition_order: "asc" or "desc"; None for rows as they come, which takes no sorting
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
        """The rows under the filter."""
        return under_filter(self.partition_field, self.sync_filter)

    def ordering(self) -> Sequence[str | OrderBy]:
        """Return the order of a model's rows."""
        if self.partition_order is None:
            return []
        return partition_order(self.partition_field, self.sync_filter, self.partition_order)

    def models(self) -> Iterable[type[SyncableModel]]:
        """The models to stream; in foreign key order, if nothing else was asked for."""
        return registered_models(self.profile) if self._models is None else self._models

    def querysets(self) -> Iterator[QuerySet[Any]]:
        """The queries behind the stream, in its order."""
        return map(self.queryset, self.models())

    def queryset(self, model: type[SyncableModel]) -> QuerySet[Any]:
        """Return the query behind one model's part of the stream."""
        return self.model_queryset(model).filter(self.condition).order_by(*self.ordering())

    @abstractmethod
    def model_queryset(self, model: type[SyncableModel]) -> QuerySet[Any]:
        """All rows of one model that this source is about, whatever their partition."""
