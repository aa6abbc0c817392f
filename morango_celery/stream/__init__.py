"""Source > Transform > Sink: a lazy, typed vocabulary for streams of anything. No Django in here.

>>> from morango_celery.stream import Buffer, Items, Unbuffer, Collect
>>> (Items([1, 2, 3]) | Buffer(2) | Unbuffer()).into(Collect())
[1, 2, 3]
"""

from __future__ import annotations

from morango_celery.stream.buffers import Buffer, Unbuffer, WeighedBuffer
from morango_celery.stream.core import FlatMap, Pipeline, Sink, Source, Stage, Transform
from morango_celery.stream.items import Collect, Items

__all__ = [
    "Buffer",
    "Collect",
    "FlatMap",
    "Items",
    "Pipeline",
    "Sink",
    "Source",
    "Stage",
    "Transform",
    "Unbuffer",
    "WeighedBuffer",
]
