"""Operators and functions that put items into lists, and take them out again."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from itertools import islice
from typing import TypeVar

from typing_extensions import override

from morango_celery.stream.core import FlatMap, OperatorModule

Item = TypeVar("Item")


def chunked(items: Iterable[Item], size: int) -> Iterator[list[Item]]:
    """Yield lists of `size` items, of which only the last may be shorter.

    :param size: items per list, at least 1
    """
    ahead = iter(items)
    while chunk := list(islice(ahead, size)):
        yield chunk


def chunked_by_weight(items: Iterable[tuple[Item, int]], size: int, most: int) -> Iterator[list[Item]]:
    """Yield lists of items, bounded by their number and by their weights.

    :param items: each with its weight; an item that weighs more than `most` has a list to itself
    :param size: most items per list, at least 1
    :param most: sum of the weights that a list of several items may have
    """
    held: list[Item] = []
    total = 0
    for item, weight in items:
        if held and (len(held) == size or total + weight > most):
            yield held
            held, total = [], 0
        held.append(item)
        total += weight
    if held:
        yield held


class Buffer(OperatorModule[Item, list[Item]]):
    """Operator that collects items in lists of `size`. The last list may be shorter."""

    def __init__(self, size: int) -> None:
        """
        :param size: items per list, at least 1
        :raises ValueError: `size` is smaller
        """
        self.size = _checked(size)

    @override
    def __call__(self, items: Iterable[Item]) -> Iterator[list[Item]]:
        return chunked(items, self.size)


class WeighedBuffer(OperatorModule[tuple[Item, int], list[Item]]):
    """Operator that collects items in lists, as `chunked_by_weight` does."""

    def __init__(self, size: int, most: int) -> None:
        """
        :param size: most items per list, at least 1
        :param most: sum of the weights that a list of several items may have
        :raises ValueError: `size` is smaller
        """
        self.size = _checked(size)
        self.most = most

    @override
    def __call__(self, items: Iterable[tuple[Item, int]]) -> Iterator[list[Item]]:
        return chunked_by_weight(items, self.size, self.most)


class Unbuffer(FlatMap[Iterable[Item], Item]):
    """Operator that yields the items of each list, one by one."""

    @override
    def flat_map(self, item: Iterable[Item]) -> Iterable[Item]:
        return item


def _checked(size: int) -> int:
    if size < 1:
        raise ValueError(f"A buffer holds at least 1 item, not {size}.")
    return size
