"""Source of the Store's records under a sync filter."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

from django.db.models import Q, QuerySet
from morango.models.certificates import Filter
from morango.models.core import Store, SyncableModel
from typing_extensions import override

from morango_celery.deserialization.foreign_keys import ForeignKeyCache
from morango_celery.deserialization.task import DeserializeTask
from morango_celery.reading.cursors import stream
from morango_celery.reading.filters import PartitionOrder
from morango_celery.reading.partitions import CHUNK_ROWS, MorangoSource
from morango_celery.reading.sizes import CHUNK_BYTES, StoredBytes
from morango_celery.stream import chunked_by_weight


class StoreModelSource(MorangoSource[DeserializeTask]):
    """Stream of a carrier for each Store record."""

    partition_field = "partition"

    def __init__(
        self,
        profile: str,
        sync_filter: Filter | None = None,
        dirty_only: bool = True,
        partition_order: PartitionOrder | None = "asc",
        fk_cache: ForeignKeyCache | None = None,
        skip_errored: bool = False,
        *,
        models: Iterable[type[SyncableModel]] | None = None,
    ) -> None:
        """
        :param fk_cache: cache that all carriers refer to; emptied before each stream
        :param skip_errored: leave out records that carry a ``deserialization_error``
        """
        super().__init__(profile, sync_filter, dirty_only, partition_order, models=models)
        self.fk_cache = ForeignKeyCache() if fk_cache is None else fk_cache
        self.skip_errored = skip_errored

    @override
    def begin(self) -> None:
        self.fk_cache.clear()

    def records(self) -> QuerySet[Any]:
        """Return the query for all records of the stream, but for its filter."""
        queryset: QuerySet[Any] = Store.objects.filter(profile=self.profile)
        if self.dirty_only:
            queryset = queryset.filter(dirty_bit=True)
        if self.skip_errored:
            # Morango wrote "" for "no error" before the column became nullable
            queryset = queryset.filter(Q(deserialization_error="") | Q(deserialization_error=None))
        return queryset

    @override
    def model_queryset(self, model: type[SyncableModel]) -> QuerySet[Any]:
        return self.records().filter(model_name=model.morango_model_name)

    @override
    def stream_for_filter(self, partition_condition: Q | None) -> Iterator[DeserializeTask]:
        """Yield the carriers. A chunk of rows is in memory at a time; of large ones, fewer."""
        size = StoredBytes("serialized") + StoredBytes("conflicting_serialized_data")
        queryset: Any
        for queryset in self.querysets(partition_condition):
            sized = stream(queryset.char_ids_list().values_list("fixed_id", size), CHUNK_ROWS)
            for ids in chunked_by_weight(sized, CHUNK_ROWS, CHUNK_BYTES):
                rows = Store.objects.in_bulk(ids)
                yield from (
                    DeserializeTask(rows[store_id], self.fk_cache) for store_id in ids if store_id in rows
                )

    def ids(self) -> Iterator[str]:
        """Yield the records' ids alone, in the order of the stream. ``serialized`` isn't fetched."""
        queryset: Any
        for queryset in self.querysets():
            yield from stream(queryset.char_ids_list(), CHUNK_ROWS)
