"""Store records to app models. Knows nothing of runs, Celery or Redis."""

from __future__ import annotations

from morango_celery.deserialization.batch import deserialize_batch
from morango_celery.deserialization.outcome import DeserializeOutcome
from morango_celery.deserialization.sink import BatchResult
from morango_celery.deserialization.sources import StoreModelSource
from morango_celery.deserialization.task import DeserializeTask

__all__ = [
    "BatchResult",
    "DeserializeOutcome",
    "DeserializeTask",
    "StoreModelSource",
    "deserialize_batch",
]
