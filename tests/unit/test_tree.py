"""Order of a tree's records in waves."""

from __future__ import annotations

import random
import tracemalloc
from collections.abc import Iterator

import pytest

from morango_celery.runs.tree import Node, next_wave


def wave(nodes: list[Node], size: int = 10, size_bytes: int = 1_000) -> list[str]:
    return [name for name, _ in next_wave(nodes, size, size_bytes)]


def node(name: str, parent: str = "", *, is_last: bool = False, size_bytes: int = 1) -> Node:
    return name, size_bytes, parent, is_last


def test_records_without_a_waiting_parent_come_first_and_then_their_descendants() -> None:
    tree = [node("grandchild", "child"), node("child", "root"), node("root"), node("orphan", "elsewhere")]

    assert wave(tree) == ["root", "orphan", "child", "grandchild"]


def test_batch_is_filled_and_no_more() -> None:
    chain = [node(str(number), str(number - 1)) for number in range(100)]

    assert wave(chain, size=7) == [str(number) for number in range(7)]


def test_more_than_a_batch_come_without_their_descendants() -> None:
    roots = [node(f"root {number}") for number in range(8)]

    assert wave([*roots, node("child", "root 0")], size=7) == [name for name, *_ in roots]


def test_descendants_come_as_long_as_a_batch_has_room_for_their_bytes() -> None:
    tree = [
        node("root", size_bytes=4),
        node("child", "root", size_bytes=5),
        node("grandchild", "child", size_bytes=2),
    ]

    assert wave(tree, size_bytes=11) == ["root", "child", "grandchild"]
    assert wave(tree, size_bytes=10) == ["root", "child"]
    assert wave(tree, size_bytes=8) == ["root"]
    assert wave(tree, size_bytes=3) == ["root"]


def test_records_in_a_cycle_or_below_one_never_come() -> None:
    cycle = [node("one", "other"), node("other", "one"), node("below", "one"), node("own", "own")]

    assert wave(cycle) == []
    assert wave([*cycle, node("root")]) == ["root"]


def test_records_left_to_the_last_stage_and_their_descendants_do_not_come() -> None:
    edited = [
        node("edited", "root", is_last=True),
        node("child", "edited"),
        node("edited root", is_last=True),
    ]

    assert wave([node("root"), *edited, node("child of a root", "edited root")]) == ["root"]


@pytest.mark.parametrize("seed", range(20))
def test_wave_after_wave_every_record_comes_once_and_after_its_parent(seed: int) -> None:
    rng = random.Random(seed)
    waiting = {
        str(n): node(
            str(n), str(rng.randrange(n)) if n and rng.random() < 0.95 else "", size_bytes=rng.randrange(100)
        )
        for n in range(300)
    }
    size, size_bytes = rng.choice([1, 5, 40, 1000]), rng.choice([50, 500, 10**6])
    done: set[str] = set()
    while waiting:
        nodes = rng.sample(list(waiting.values()), len(waiting))
        found = wave(nodes, size, size_bytes)
        is_batch = len(found) <= size and sum(waiting[name][1] for name in found) <= size_bytes
        batch = set(found) if is_batch else set()
        assert found
        for name in found:
            _, _, parent, _ = waiting.pop(name)  # fails for one that comes twice
            assert not parent or parent in done | batch
        done |= set(found)


def test_memory_does_not_grow_with_the_tree() -> None:
    def peak(number: int) -> int:
        nodes: Iterator[Node] = (node(f"{n:032x}", f"{n - 1:032x}") for n in range(number))
        tracemalloc.start()
        try:
            assert len(list(next_wave(nodes, 100, 10**9))) == 100
            return tracemalloc.get_traced_memory()[1]
        finally:
            tracemalloc.stop()

    assert peak(100_000) < peak(1_000) + 100_000
