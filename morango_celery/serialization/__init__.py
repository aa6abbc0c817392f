"""App models to Store records, in a stream. Knows nothing of runs, Celery or Redis."""

from __future__ import annotations

from morango_celery.serialization.sink import StoreSink
from morango_celery.serialization.source import AppModelSource
from morango_celery.serialization.store import serialize_into_store
from morango_celery.serialization.task import SerializeTask
from morango_celery.serialization.update import StoreLookup, StoreUpdate

__all__ = [
    "AppModelSource",
    "SerializeTask",
    "StoreLookup",
    "StoreSink",
    "StoreUpdate",
    "serialize_into_store",
]
