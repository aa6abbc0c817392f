"""The store that the settings choose."""

from __future__ import annotations

from functools import lru_cache
from importlib import import_module

from morango_celery.payloads.conf import settings
from morango_celery.payloads.store import PayloadStore

BACKENDS = {
    "database": "morango_celery.payloads.database:DatabaseBackend",
    "redis": "morango_celery.payloads.redis:RedisBackend",
    "files": "morango_celery.payloads.files:FilesBackend",
    "memory": "morango_celery.payloads.memory:MemoryBackend",
}


def payload_store() -> PayloadStore:
    """Return the store that the settings choose: one, with one cache, for each backend and location."""
    return _store(settings.BACKEND, settings.LOCATION)


@lru_cache(maxsize=8)
def _store(name: str, location: str) -> PayloadStore:
    module, _, class_name = BACKENDS[name].partition(
        ":"
    )  # imported late: each needs packages that the others don't
    backend = getattr(import_module(module), class_name)
    return PayloadStore(backend(location) if location else backend())
