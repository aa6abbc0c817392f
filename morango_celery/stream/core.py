"""Interfaces of a stream: items of a source pass operators, one after another, on their way into a sink.

Names, signatures and behaviour are those of Morango's ``morango.sync.stream.core``, which isn't released yet.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator
from typing import Any, Generic, TypeVar, cast

from typing_extensions import override

In = TypeVar("In", contravariant=True)
Out = TypeVar("Out", covariant=True)
Item = TypeVar("Item")
Next = TypeVar("Next")


class StreamModule(ABC):  # noqa: B024  (its subclasses differ in everything)
    """Base of all parts of a stream."""


class PipelineModule(StreamModule, Generic[Out]):
    """Base of the parts that an operator can be appended to."""

    @abstractmethod
    def pipe(self, other: OperatorModule[Out, Next]) -> Pipeline[Next]:
        """Return a pipeline that ends with `other`."""


class OperatorModule(StreamModule, Generic[In, Out]):
    """Base of the parts between a source and a sink: an iterable in, an iterator out."""

    @abstractmethod
    def __call__(self, items: Iterable[In]) -> Iterator[Out]:
        """Yield the results for `items`, in order. `items` is read no further than the results are."""


class Source(PipelineModule[Out]):
    """Beginning of a stream. It may be streamed more than once, after another `begin`."""

    def begin(self) -> None:
        """Prepare to stream from the first item on. Called once before each stream."""

    @abstractmethod
    def stream(self) -> Iterator[Out]:
        """Yield the items one by one, reading no further than asked."""

    @override
    def pipe(self, other: OperatorModule[Out, Next]) -> Pipeline[Next]:
        """Return a new pipeline of this source and `other`.

        :raises ValueError: `other` is no operator
        """
        return Pipeline(self).pipe(other)


class Sink(StreamModule, Generic[In]):
    """End of a stream."""

    @abstractmethod
    def consume(self, item: In) -> None:
        """Take one item."""

    def finalize(self) -> None:
        """Complete the work after the last item. Called once, unless something raised before."""


class Pipeline(PipelineModule[Item]):
    """Source and the operators that its items pass."""

    def __init__(
        self, source: Source[Any], modules: Iterable[OperatorModule[Any, Any]] | None = None
    ) -> None:
        """
        :param modules: operators, in the order in which items pass them
        """
        self.source = source
        self.modules = list(modules or ())

    @override
    def pipe(self, other: OperatorModule[Item, Next]) -> Pipeline[Next]:
        """Append an operator to this very pipeline, and return it.

        :raises ValueError: `other` is no operator
        """
        if not isinstance(other, OperatorModule):
            raise ValueError(f"A pipeline consists of operators. {other!r} is none.")
        self.modules.append(other)
        return cast("Pipeline[Next]", self)

    def end(self, sink: Sink[Item]) -> int:
        """Send all items through the operators into `sink`, then finalize it.

        An item reaches the sink before the next one is read, as far as no operator holds it back.

        :returns: the number of items that the sink consumed
        """
        self.source.begin()
        items: Iterator[Any] = self.source.stream()
        for module in self.modules:
            items = module(items)
        consumed = 0
        for item in items:
            sink.consume(item)
            consumed += 1
        sink.finalize()
        return consumed


class Transform(OperatorModule[In, Out]):
    """Operator with at most one result for an item."""

    @abstractmethod
    def transform(self, item: In) -> Out | None:
        """Return the result for one item, or None to drop the item."""

    @override
    def __call__(self, items: Iterable[In]) -> Iterator[Out]:
        return (result for result in map(self.transform, items) if result is not None)


class FlatMap(OperatorModule[In, Out]):
    """Operator with any number of results for an item."""

    @abstractmethod
    def flat_map(self, item: In) -> Iterable[Out]:
        """Return the results for one item, in order."""

    @override
    def __call__(self, items: Iterable[In]) -> Iterator[Out]:
        for item in items:
            yield from self.flat_map(item)
