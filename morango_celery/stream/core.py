"""The interfaces: a source is read lazily through stages into one sink."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator
from typing import Generic, TypeVar

In = TypeVar("In", contravariant=True)
Out = TypeVar("Out", covariant=True)
Next = TypeVar("Next")
Result = TypeVar("Result", covariant=True)


class Source(ABC, Generic[Out]):
    """Where items come from. Iterating starts afresh each time, and reads no further than asked."""

    @abstractmethod
    def stream(self) -> Iterator[Out]:
        """Yield the items, one by one."""

    def __iter__(self) -> Iterator[Out]:
        return self.stream()

    def __or__(self, stage: Stage[Out, Next]) -> Pipeline[Next]:
        return Pipeline(self, stage)

    def pipe(self, stage: Stage[Out, Next]) -> Pipeline[Next]:
        """The same as ``source | stage``."""
        return self | stage

    def into(self, sink: Sink[Out, Result]) -> Result:
        """Read everything into `sink` and return its result.

        The sink is finished only when the source ended without an error.
        """
        for item in self:
            sink.consume(item)
        return sink.finish()


class Stage(ABC, Generic[In, Out]):
    """One step between a source and a sink: an iterator in, an iterator out."""

    @abstractmethod
    def apply(self, items: Iterator[In]) -> Iterator[Out]:
        """Yield the results for `items`, in order, reading `items` lazily."""


class Transform(Stage[In, Out]):
    """One item in, one item out."""

    @abstractmethod
    def transform(self, item: In) -> Out:
        """The result for one item."""

    def apply(self, items: Iterator[In]) -> Iterator[Out]:
        return map(self.transform, items)


class FlatMap(Stage[In, Out]):
    """One item in, any number of items out."""

    @abstractmethod
    def flat_map(self, item: In) -> Iterable[Out]:
        """The results for one item, in order."""

    def apply(self, items: Iterator[In]) -> Iterator[Out]:
        for item in items:
            yield from self.flat_map(item)


class Pipeline(Source[Out]):
    """A source with one more stage behind it; itself a source, so stages chain with ``|``."""

    def __init__(self, source: Source[In], stage: Stage[In, Out]) -> None:
        def start() -> Iterator[Out]:
            return stage.apply(iter(source))

        self._start = start

    def stream(self) -> Iterator[Out]:
        return self._start()


class Sink(ABC, Generic[In, Result]):
    """Where items end."""

    @abstractmethod
    def consume(self, item: In) -> None:
        """Take one item."""

    @abstractmethod
    def finish(self) -> Result:
        """Called once, after the last item."""
