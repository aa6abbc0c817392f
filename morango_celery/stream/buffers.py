"""Stages that put items into lists and take them out again."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from itertools import islice
from typing import TypeVar

from morango_celery.stream.core import FlatMap, Stage

Item = TypeVar("Item")


class Buffer(Stage[Item, list[Item]]):
    """Lists of up to `size` items; only the last may be shorter."""

    def __init__(self, size: int) -> None:
        """
        :param size: items per list, at least 1
        :raises ValueError: `size` is smaller
        """
        if size < 1:
            raise ValueError(f"A buffer holds at least 1 item, not {size}.")
        self.size = size

    def apply(self, items: Iterator[Item]) -> Iterator[list[Item]]:
        while chunk := list(islice(items, self.size)):
            yield chunk


class WeighedBuffer(Stage[tuple[Item, int], list[Item]]):
    """Lists of up to `size` items, of which each comes with its weight, that weigh up to `most` together.

    An item that weighs more has a list to itself.
    """

    def __init__(self, size: int, most: int) -> None:
        """
        :param size: items per list, at least 1
        :param most: what the items of a list weigh together
        :raises ValueError: `size` is smaller
        """
        if size < 1:
            raise ValueError(f"A buffer holds at least 1 item, not {size}.")
        self.size = size
        self.most = most

    def apply(self, items: Iterator[tuple[Item, int]]) -> Iterator[list[Item]]:
        held: list[Item] = []
        total = 0
        for item, weight in items:
            if held and (len(held) == self.size or total + weight > self.most):
                yield held
                held, total = [], 0
            held.append(item)
            total += weight
        if held:
            yield held


class Unbuffer(FlatMap[Iterable[Item], Item]):
    """The items of each list, one by one."""

    def flat_map(self, item: Iterable[Item]) -> Iterable[Item]:
        return item
