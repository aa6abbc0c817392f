"""The vocabulary keeps its promises: lazy, in order, repeatable; a sink is finished only when all is well."""

from __future__ import annotations

import doctest
import itertools
import os
import subprocess
import sys
from collections.abc import Callable, Iterable, Iterator
from itertools import islice

import pytest
from hypothesis import given
from hypothesis import strategies as st

from morango_celery import stream
from morango_celery.stream import (
    Buffer,
    Collect,
    FlatMap,
    Items,
    Pipeline,
    Sink,
    Source,
    Stage,
    Transform,
    Unbuffer,
    WeighedBuffer,
)
from tests.processes import ROOT


class Counted(Source[int]):
    """0, 1, 2, ... as if for ever; knows how many were read and how often it was started."""

    def __init__(self) -> None:
        self.read = 0
        self.starts = 0

    def stream(self) -> Iterator[int]:
        self.starts += 1
        for number in range(1000):
            self.read += 1
            yield number
        raise AssertionError("read to the end")


class Double(Transform[int, int]):
    def transform(self, item: int) -> int:
        return 2 * item


class Repeat(FlatMap[int, int]):
    """Each number as often as its value."""

    def flat_map(self, item: int) -> Iterable[int]:
        return [item] * item


class Noting(Sink[int, str]):
    def __init__(self) -> None:
        self.noted: list[int | str] = []

    def consume(self, item: int) -> None:
        self.noted.append(item)

    def finish(self) -> str:
        self.noted.append("finished")
        return "the result"


# What a stage has to read from its source to give so many items
STAGES: list[tuple[Callable[[], Stage[int, object]], int, int]] = [
    (Double, 3, 3),
    (Repeat, 3, 3),  # 0 gives none, 1 gives one, 2 gives two
    (lambda: Buffer(5), 2, 10),
]


@pytest.mark.parametrize(("make", "taken", "read"), STAGES, ids=["Transform", "FlatMap", "Buffer"])
def test_stages_read_no_further_than_asked(
    make: Callable[[], Stage[int, object]], taken: int, read: int
) -> None:
    # Given a pipeline over a source that must not be read to its end
    source = Counted()
    pipeline = source | make()

    # When nothing is asked for, nothing is read
    results = iter(pipeline)
    assert source.read == 0

    # When some items are asked for
    assert len(list(islice(results, taken))) == taken

    # Then the source was read so far and no further
    assert source.read == read


def test_unbuffer_reads_one_list_at_a_time() -> None:
    source = Counted()
    numbers = iter(source | Buffer(10) | Unbuffer[int]())

    assert [next(numbers) for _ in range(11)] == list(range(11))
    assert source.read == 20


def test_a_source_is_read_into_a_sink_item_by_item() -> None:
    # Given a sink that looks how far the source was read whenever it gets an item
    source = Counted()
    reads = []

    class Watching(Sink[int, None]):
        def consume(self, item: int) -> None:
            reads.append(source.read)
            if item == 3:
                raise StopAsyncIteration

        def finish(self) -> None:
            raise AssertionError("not reached")

    # When it takes four items and then fails
    with pytest.raises(StopAsyncIteration):
        (source | Double() | Buffer(1) | Unbuffer[int]() | Half()).into(Watching())

    # Then each was handed over before the next was read
    assert reads == [1, 2, 3, 4]


class Half(Transform[int, int]):
    def transform(self, item: int) -> int:
        return item // 2


@given(st.lists(st.integers()), st.integers(min_value=1, max_value=12))
def test_a_buffer_fills_every_list_but_the_last(items: list[int], size: int) -> None:
    buffers = (Items(items) | Buffer(size)).into(Collect())

    assert [item for buffer in buffers for item in buffer] == items
    assert all(len(buffer) == size for buffer in buffers[:-1])
    assert all(1 <= len(buffer) <= size for buffer in buffers)


@given(st.lists(st.integers()), st.integers(min_value=1, max_value=12))
def test_unbuffer_undoes_buffer(items: list[int], size: int) -> None:
    assert (Items(items) | Buffer(size) | Unbuffer[int]()).into(Collect()) == items


@pytest.mark.parametrize("size", [0, -1])
def test_a_buffer_for_nothing_is_refused(size: int) -> None:
    with pytest.raises(ValueError, match=f"at least 1 item, not {size}"):
        Buffer(size)


def test_flat_map_keeps_the_order() -> None:
    assert (Items([3, 0, 1, 2]) | Repeat()).into(Collect()) == [3, 3, 3, 1, 2, 2]


def test_stages_chain_with_pipe_and_with_the_operator() -> None:
    chained = Items([1, 2]).pipe(Double()).pipe(Buffer(1))

    assert isinstance(chained, Pipeline)
    assert list(chained) == list(Items([1, 2]) | Double() | Buffer(1)) == [[2], [4]]


def test_each_iteration_of_a_pipeline_starts_afresh() -> None:
    # Given a pipeline whose stages hold something between items
    source = Counted()
    pipeline = source | Double() | Buffer(2) | Unbuffer[int]() | Buffer(4)
    assert source.starts == 0  # building it starts nothing

    # When two readers are in the middle of it at once
    one, other = iter(pipeline), iter(pipeline)
    assert next(one) == next(other) == [0, 2, 4, 6]
    assert next(one) == next(other) == [8, 10, 12, 14]

    # Then each of them, and a third, reads from the beginning
    assert next(iter(pipeline)) == [0, 2, 4, 6]
    assert source.starts == 3


def test_a_sink_is_finished_once_after_the_last_item() -> None:
    sink = Noting()

    result = (Items([1, 2]) | Double()).into(sink)

    assert result == "the result"
    assert sink.noted == [2, 4, "finished"]


def test_an_empty_source_finishes_its_sink_too() -> None:
    sink = Noting()

    assert Items[int]([]).into(sink) == "the result"
    assert sink.noted == ["finished"]


class Breaking(Source[int]):
    def stream(self) -> Iterator[int]:
        yield 1
        raise LookupError("the source broke")


class BreakingStage(Transform[int, int]):
    def transform(self, item: int) -> int:
        if item == 2:
            raise LookupError("the stage broke")
        return item


class BreakingSink(Noting):
    def consume(self, item: int) -> None:
        super().consume(item)
        if item == 1:
            raise LookupError("the sink broke")


@pytest.mark.parametrize(
    ("source", "sink"),
    [
        (Breaking(), Noting()),
        (Items([1, 2, 3]) | BreakingStage(), Noting()),
        (Items([1, 2, 3]), BreakingSink()),
    ],
    ids=["source", "stage", "sink"],
)
def test_a_sink_is_not_finished_after_an_error(source: Source[int], sink: Noting) -> None:
    with pytest.raises(LookupError, match="broke"):
        source.into(sink)

    assert sink.noted == [1]


def test_the_examples_in_the_documentation_hold() -> None:
    results = doctest.testmod(stream)

    assert results.attempted >= 2
    assert results.failed == 0


PUBLIC_NAMES = [
    "DeserializeTask",
    "StoreModelSource",
    "cancel",
    "deserialize",
    "deserialize_from_store",
    "recover_runs",
    "retry",
    "serialize_into_store",
]

BEFORE_SETUP = """
import sys
import morango_celery
import morango_celery.stream
from morango_celery.stream import Buffer, Items

assert list(Items([1, 2]) | Buffer(1)) == [[1], [2]]
loaded = {name.split(".")[0] for name in sys.modules} & {"django", "morango", "celery", "redis"}
print(sorted(loaded), sorted(morango_celery.__all__))
"""


def test_the_package_imports_before_django_is_set_up() -> None:
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

    # Then that works, and loads neither Django nor what builds on it
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == f"[] {PUBLIC_NAMES}"


def test_every_public_name_is_there_once_django_is_set_up() -> None:
    import morango_celery

    assert sorted(morango_celery.__all__) == PUBLIC_NAMES
    assert all(callable(getattr(morango_celery, name)) for name in PUBLIC_NAMES)


def test_an_unknown_name_of_the_package_is_named_in_the_error() -> None:
    import morango_celery

    with pytest.raises(AttributeError, match="module 'morango_celery' has no attribute 'desserialize'"):
        _ = morango_celery.desserialize


@given(weights=st.lists(st.integers(0, 20), max_size=30), size=st.integers(1, 5), most=st.integers(1, 30))
def test_a_list_holds_no_more_than_its_items_may_weigh(weights: list[int], size: int, most: int) -> None:
    lists = (Items(list(enumerate(weights))) | WeighedBuffer[int](size, most)).into(Collect())

    assert [number for items in lists for number in items] == list(range(len(weights)))
    for items in lists:
        assert 1 <= len(items) <= size
        assert len(items) == 1 or sum(weights[number] for number in items) <= most
    for items, following in itertools.pairwise(lists):  # and none could have held one more
        total = sum(weights[number] for number in [*items, following[0]])
        assert len(items) == size or total > most


def test_a_weighed_buffer_holds_at_least_one_item() -> None:
    with pytest.raises(ValueError, match="at least 1 item, not 0"):
        WeighedBuffer(0, 1)
