"""Where carriers come from: rows of the Store under a sync filter."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

from django.db.models import Func, IntegerField, Q, QuerySet
from morango.models.certificates import Filter
from morango.models.core import Store, SyncableModel

from morango_celery.deserialize.task import DeserializeTask
from morango_celery.reading.cursors import stream
from morango_celery.reading.filters import PartitionOrder
from morango_celery.reading.partitions import CHUNK_ROWS, PartitionedSource


class StoredBytes(Func):
    """The length of a text in bytes. PostgreSQL knows it without reading a text that is stored apart."""

    function = "octet_length"
    output_field = IntegerField()

    def as_sqlite(self, compiler: Any, connection: Any, **context: Any) -> Any:
        # octet_length() is of SQLite 3.43
        return self.as_sql(compiler, connection, template="length(CAST(%(expressions)s AS BLOB))", **context)


class StoreModelSource(PartitionedSource[DeserializeTask]):
    """Streams a carrier per Store record."""

    partition_field = "partition"

    def __init__(
        self,
        profile: str,
        sync_filter: Filter | None = None,
        dirty_only: bool = True,
        partition_order: PartitionOrder | None = "asc",
        *,
        exclude_erroring: bool = True,
        models: Iterable[type[SyncableModel]] | None = None,
    ) -> None:
        """
        :param exclude_erroring: leave out records that carry a ``deserialization_error``
        """
        super().__init__(profile, sync_filter, dirty_only, partition_order, models=models)
        self.exclude_erroring = exclude_erroring

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
