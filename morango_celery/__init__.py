"""A deserializer of Morango's Store in Celery workers, with Morango's own results.

It can be imported before ``django.setup()``: the names below are loaded on first use.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from morango_celery.version import __version__ as __version__

if TYPE_CHECKING:
    from morango_celery.api import (
        cancel,
        deserialize,
        deserialize_from_store,
        pause,
        recover_runs,
        resume,
        retry,
    )
    from morango_celery.deserialization import DeserializeTask, StoreModelSource
    from morango_celery.serialization import serialize_into_store

_HOMES = {
    "cancel": "morango_celery.api",
    "deserialize": "morango_celery.api",
    "deserialize_from_store": "morango_celery.api",
    "pause": "morango_celery.api",
    "recover_runs": "morango_celery.api",
    "resume": "morango_celery.api",
    "retry": "morango_celery.api",
    "DeserializeTask": "morango_celery.deserialization",
    "StoreModelSource": "morango_celery.deserialization",
    "serialize_into_store": "morango_celery.serialization",
}

__all__ = [
    "DeserializeTask",
    "StoreModelSource",
    "cancel",
    "deserialize",
    "deserialize_from_store",
    "pause",
    "recover_runs",
    "resume",
    "retry",
    "serialize_into_store",
]


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(_HOMES[name]), name)
