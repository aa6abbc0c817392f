"""Claim check for large arguments: values stored by the hash of their content, references in messages.

Only the module `task` knows Celery; it is loaded on first use.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from morango_celery.payloads.backend import Backend, Pruned
    from morango_celery.payloads.configured import payload_store
    from morango_celery.payloads.reference import Reference
    from morango_celery.payloads.store import PayloadStore
    from morango_celery.payloads.task import PayloadTask

_HOMES = {
    "Backend": "backend",
    "PayloadStore": "store",
    "PayloadTask": "task",
    "Pruned": "backend",
    "Reference": "reference",
    "payload_store": "configured",
}

__all__ = ["Backend", "PayloadStore", "PayloadTask", "Pruned", "Reference", "payload_store"]


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_HOMES[name]}"), name)
