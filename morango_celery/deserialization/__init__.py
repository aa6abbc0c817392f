"""Store records to app models. Knows nothing of runs, Celery or Redis.

Called, it is `morango_celery.api.deserialize`.
"""

from __future__ import annotations

import sys
from importlib import import_module
from types import ModuleType
from typing import Any

from morango_celery.deserialization.batch import deserialize_batch
from morango_celery.deserialization.sink import BatchResult
from morango_celery.deserialization.sources import StoreModelSource
from morango_celery.deserialization.task import DeserializeTask, Outcome

__all__ = [
    "BatchResult",
    "DeserializeTask",
    "Outcome",
    "StoreModelSource",
    "deserialize_batch",
]


class _CallablePackage(ModuleType):
    """``morango_celery.deserialize`` names the function, and is the package of the pipeline.

    Python makes every imported subpackage an attribute of its parent: so the package is callable,
    and the name means the same whatever was imported before.
    """

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        return import_module("morango_celery.api").deserialize(*args, **kwargs)


sys.modules[__name__].__class__ = _CallablePackage
