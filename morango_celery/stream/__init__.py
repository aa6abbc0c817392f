"""Typed vocabulary for lazy streams, without Django. A `Source` is piped through operators into a `Sink`.

>>> from morango_celery.stream import Buffer, Sink, Source
>>> class Numbers(Source[int]):
...     def stream(self):
...         return iter([1, 2, 3])
>>> class Print(Sink[list[int]]):
...     def consume(self, item):
...         print(item)
>>> Numbers().pipe(Buffer(2)).end(Print())
[1, 2]
[3]
2
"""

from __future__ import annotations

from morango_celery.stream.buffers import Buffer, Unbuffer, WeighedBuffer, chunked, chunked_by_weight
from morango_celery.stream.core import (
    FlatMap,
    OperatorModule,
    Pipeline,
    PipelineModule,
    Sink,
    Source,
    StreamModule,
    Transform,
)

__all__ = [
    "Buffer",
    "FlatMap",
    "OperatorModule",
    "Pipeline",
    "PipelineModule",
    "Sink",
    "Source",
    "StreamModule",
    "Transform",
    "Unbuffer",
    "WeighedBuffer",
    "chunked",
    "chunked_by_weight",
]
