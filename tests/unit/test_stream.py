"""Streams are lazy, in order and repeatable, and a sink is finalized only when all went well."""

from __future__ import annotations

import doctest
import itertools
import os
import subprocess
import sys
from collections.abc import Callable, Iterable, Iterator
from itertools import islice
from typing import Any, TypeVar

import pytest
from hypothesis import given
from hypothesis import strategies as st
from typing_extensions import override

from morango_celery import stream
from morango_celery.stream import (
    Buffer,
    FlatMap,
    OperatorModule,
    Pipeline,
    Sink,
    Source,
    Transform,
    Unbuffer,
    WeighedBuffer,
    chunked,
    chunked_by_weight,
)
from tests.support.processes import ROOT

Item = TypeVar("Item")


class Numbers(Source[int]):
    """Source of some numbers. It can be streamed once after each `begin`."""

    def __init__(self, *numbers: int) -> None:
        self.numbers = numbers
        self.begun = 0
        self.streamed = 0

    @override
    def begin(self) -> None:
        self.begun += 1

    @override
    def stream(self) -> Iterator[int]:
        self.streamed += 1
        assert self.begun == self.streamed
        return iter(self.numbers)


class Counted(Source[int]):
    """Source of 0, 1, 2, ... that must not be read to its end, and knows how many were read."""

    def __init__(self) -> None:
        self.read = 0

    @override
    def stream(self) -> Iterator[int]:
        for number in range(1000):
            self.read += 1
            yield number
        raise AssertionError("read to the end")


class Collect(Sink[Item]):
    """Sink that holds all items, and counts how often it was finalized."""

    def __init__(self) -> None:
        self.items: list[Item] = []
        self.finalized = 0

    @override
    def consume(self, item: Item) -> None:
        assert not self.finalized
        self.items.append(item)

    @override
    def finalize(self) -> None:
        self.finalized += 1


class Double(Transform[int, int]):
    @override
    def transform(self, item: int) -> int:
        return 2 * item


class OnlyOdd(Transform[int, int]):
    @override
    def transform(self, item: int) -> int | None:
        return item if item % 2 else None


class Repeat(FlatMap[int, int]):
    """Each number as often as its value."""

    @override
    def flat_map(self, item: int) -> Iterable[int]:
        return [item] * item


# How much an operator has to read to give so many items
OPERATORS: list[tuple[Callable[[], OperatorModule[int, object]], int, int]] = [
    (Double, 3, 3),
    (OnlyOdd, 3, 6),
    (Repeat, 3, 3),  # 0 gives none, 1 gives one, 2 gives two
    (lambda: Buffer(5), 2, 10),
]


@pytest.mark.parametrize(
    ("make", "wanted", "read"), OPERATORS, ids=["Transform", "dropping", "FlatMap", "Buffer"]
)
def test_operators_read_no_further_than_asked(
    make: Callable[[], OperatorModule[int, object]], wanted: int, read: int
) -> None:
    source = Counted()
    results = make()(source.stream())
    assert source.read == 0

    assert len(list(islice(results, wanted))) == wanted

    assert source.read == read


def test_unbuffer_reads_one_list_at_a_time() -> None:
    source = Counted()
    numbers = Unbuffer[int]()(Buffer[int](10)(source.stream()))

    assert [next(numbers) for _ in range(11)] == list(range(11))
    assert source.read == 20


def test_item_is_consumed_before_the_next_one_is_read() -> None:
    source = Counted()
    reads = []

    class Watch(Sink[int]):
        @override
        def consume(self, item: int) -> None:
            reads.append(source.read)
            if item == 6:
                raise StopAsyncIteration

    with pytest.raises(StopAsyncIteration):
        source.pipe(Double()).pipe(Buffer(1)).pipe(Unbuffer[int]()).end(Watch())

    assert reads == [1, 2, 3, 4]


@given(st.lists(st.integers()), st.integers(min_value=1, max_value=12))
def test_buffer_fills_every_list_but_the_last(items: list[int], size: int) -> None:
    buffers = list(Buffer[int](size)(items))

    assert buffers == list(chunked(items, size))
    assert [item for buffer in buffers for item in buffer] == items
    assert all(len(buffer) == size for buffer in buffers[:-1])
    assert all(1 <= len(buffer) <= size for buffer in buffers)


@given(st.lists(st.integers()), st.integers(min_value=1, max_value=12))
def test_unbuffer_undoes_buffer(items: list[int], size: int) -> None:
    sink = Collect[int]()

    Numbers(*items).pipe(Buffer(size)).pipe(Unbuffer[int]()).end(sink)

    assert sink.items == items


@pytest.mark.parametrize("size", [0, -1])
def test_buffer_for_nothing_is_refused(size: int) -> None:
    with pytest.raises(ValueError, match=f"at least 1 item, not {size}"):
        Buffer(size)


def test_flat_map_keeps_the_order() -> None:
    assert list(Repeat()([3, 0, 1, 2])) == [3, 3, 3, 1, 2, 2]


def test_transform_drops_items_for_which_it_returns_none() -> None:
    assert list(OnlyOdd()([1, 2, 3, 0])) == [1, 3]


def test_pipe_appends_to_a_pipeline_and_leaves_its_source_as_it_is() -> None:
    source = Numbers(1, 2)
    pipeline = source.pipe(Double())

    longer = pipeline.pipe(Buffer(1))

    assert isinstance(longer, Pipeline)
    assert id(longer) == id(pipeline)
    lists, numbers = Collect[list[int]](), Collect[int]()
    assert longer.end(lists) == Pipeline(source).end(numbers) == 2
    assert (lists.items, numbers.items) == ([[2], [4]], [1, 2])


def test_pipeline_takes_its_operators_as_a_list_too() -> None:
    sink = Collect[list[int]]()

    Pipeline[list[int]](Numbers(1, 2, 3), [Double(), Buffer(2)]).end(sink)

    assert sink.items == [[2, 4], [6]]


@pytest.mark.parametrize("start", [Numbers(), Pipeline[int](Numbers())], ids=["source", "pipeline"])
def test_only_operators_can_be_piped(start: Source[int] | Pipeline[int]) -> None:
    no_operator: Any = Collect[int]()

    with pytest.raises(ValueError, match="consists of operators"):
        start.pipe(no_operator)


def test_each_end_begins_the_source_and_streams_it_once_more() -> None:
    source, sinks = Numbers(1, 2, 3), [Collect[list[int]](), Collect[list[int]]()]
    pipeline = source.pipe(Double()).pipe(Buffer(2))
    assert source.begun == 0  # building it starts nothing

    for sink in sinks:
        pipeline.end(sink)

    assert source.begun == source.streamed == 2
    assert [sink.items for sink in sinks] == [[[2, 4], [6]]] * 2


@pytest.mark.parametrize("numbers", [(), (1, 2)], ids=["empty", "two"])
def test_end_finalizes_the_sink_once_and_returns_the_number_of_items(numbers: tuple[int, ...]) -> None:
    sink = Collect[int]()

    count = Numbers(*numbers).pipe(Double()).end(sink)

    assert (count, sink.finalized) == (len(numbers), 1)


class BreakingSource(Source[int]):
    @override
    def stream(self) -> Iterator[int]:
        yield 1
        raise LookupError("the source broke")


class BreakingOperator(Transform[int, int]):
    @override
    def transform(self, item: int) -> int:
        if item == 2:
            raise LookupError("the operator broke")
        return item


class BreakingSink(Collect[int]):
    @override
    def consume(self, item: int) -> None:
        super().consume(item)
        raise LookupError("the sink broke")


@pytest.mark.parametrize(
    ("pipeline", "sink"),
    [
        (Pipeline[int](BreakingSource()), Collect[int]()),
        (Numbers(1, 2, 3).pipe(BreakingOperator()), Collect[int]()),
        (Pipeline[int](Numbers(1, 2, 3)), BreakingSink()),
    ],
    ids=["source", "operator", "sink"],
)
def test_sink_is_not_finalized_after_an_error(pipeline: Pipeline[int], sink: Collect[int]) -> None:
    with pytest.raises(LookupError, match="broke"):
        pipeline.end(sink)

    assert (sink.items, sink.finalized) == ([1], 0)


def test_examples_in_the_documentation_hold() -> None:
    results = doctest.testmod(stream)

    assert results.attempted >= 2
    assert results.failed == 0


PUBLIC_NAMES = [
    "DeserializeTask",
    "StoreModelSource",
    "cancel",
    "deserialize",
    "deserialize_from_store",
    "pause",
    "recover_runs",
    "resume",
    "retry",
    "serialize_into_store",
]

BEFORE_SETUP = """
import sys
import morango_celery
import morango_celery.stream
from morango_celery.stream import Buffer

assert list(Buffer(1)([1, 2])) == [[1], [2]]
loaded = {name.split(".")[0] for name in sys.modules} & {"django", "morango", "celery", "redis"}
print(sorted(loaded), sorted(morango_celery.__all__))
"""


def test_package_imports_before_django_is_set_up() -> None:
    # Given an interpreter in which no settings are named
    environment = {name: value for name, value in os.environ.items() if name != "DJANGO_SETTINGS_MODULE"}

    # When package and vocabulary are imported and used there
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", BEFORE_SETUP],
        cwd=ROOT,
        env=environment,
        capture_output=True,
        text=True,
        timeout=60,
    )

    # Then that works, and loads neither Django nor packages that need it
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == f"[] {PUBLIC_NAMES}"


def test_every_public_name_is_there_once_django_is_set_up() -> None:
    import morango_celery

    assert sorted(morango_celery.__all__) == PUBLIC_NAMES
    assert all(callable(getattr(morango_celery, name)) for name in PUBLIC_NAMES)


def test_unknown_name_of_the_package_is_named_in_the_error() -> None:
    import morango_celery

    with pytest.raises(AttributeError, match="module 'morango_celery' has no attribute 'desserialize'"):
        _ = morango_celery.desserialize


@given(weights=st.lists(st.integers(0, 20), max_size=30), size=st.integers(1, 5), most=st.integers(1, 30))
def test_list_holds_no_more_than_its_items_may_weigh(weights: list[int], size: int, most: int) -> None:
    lists = list(WeighedBuffer[int](size, most)(enumerate(weights)))

    assert lists == list(chunked_by_weight(enumerate(weights), size, most))
    assert [number for items in lists for number in items] == list(range(len(weights)))
    for items in lists:
        assert 1 <= len(items) <= size
        assert len(items) == 1 or sum(weights[number] for number in items) <= most
    for items, following in itertools.pairwise(lists):  # and none could have held one more
        total = sum(weights[number] for number in [*items, following[0]])
        assert len(items) == size or total > most


def test_weighed_buffer_holds_at_least_one_item() -> None:
    with pytest.raises(ValueError, match="at least 1 item, not 0"):
        WeighedBuffer(0, 1)
