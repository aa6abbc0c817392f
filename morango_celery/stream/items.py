"""The simplest source and the simplest sink."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import TypeVar

from morango_celery.stream.core import Sink, Source

Item = TypeVar("Item")


class Items(Source[Item]):
    """A source over any iterable. A one-shot iterable can be streamed once only."""

    def __init__(self, items: Iterable[Item]) -> None:
        self.items = items

    def stream(self) -> Iterator[Item]:
        return iter(self.items)


class Collect(Sink[Item, list[Item]]):
    """A sink that returns everything as a list; for results that are known to be small."""

    def __init__(self) -> None:
        self.items: list[Item] = []

    def consume(self, item: Item) -> None:
        self.items.append(item)

    def finish(self) -> list[Item]:
        return self.items
