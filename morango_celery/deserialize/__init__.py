"""Store records to app models. Knows nothing of runs, Celery or Redis."""

from __future__ import annotations

from morango_celery.deserialize.batch import deserialize_batch
from morango_celery.deserialize.sink import BatchResult
from morango_celery.deserialize.sources import AppModelSource, StoreModelSource
from morango_celery.deserialize.task import DeserializeTask, Outcome

__all__ = [
    "AppModelSource",
    "BatchResult",
    "DeserializeTask",
    "Outcome",
    "StoreModelSource",
    "deserialize_batch",
]
