"""Large arguments on their way: into a reference, through the broker, and back."""

from __future__ import annotations

import datetime
import decimal
import uuid
from typing import Any

import pytest
from celery import chain, chord
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from redis import Redis

from morango_celery.errors import (
    InvalidMessageError,
    MissingPayloadError,
    PayloadStoreUnavailableError,
)
from morango_celery.payloads import PayloadStore, Reference
from morango_celery.payloads.memory import MemoryBackend
from tests.payloads.messages import Message, waiting
from tests.payloads.project import (
    app,
    echo,
    itself,
    join,
    partly_inline,
    succeed_later,
    wholly_inline,
)
from tests.payloads.sent import LARGE, SMALL, reference_of, sent
from tests.payloads.values import JSON
from worker.services import free_port


def test_large_argument_travels_as_a_reference_and_a_small_one_as_it_is(broker: Redis) -> None:
    echo.delay(SMALL, LARGE, name=LARGE)

    message = sent(broker)
    assert LARGE[0].encode() not in message.body
    assert b'["small"]' in message.body
    assert sorted(message.headers["payloads"], key=str) == [-1, "name"]
    assert message.deliver() == [[SMALL, LARGE], {"name": LARGE}]


def test_message_without_large_arguments_is_like_any_other(
    broker: Redis, memory_backend: MemoryBackend
) -> None:
    echo.delay(SMALL, 7, None, name="text")

    message = sent(broker)
    assert "payloads" not in message.headers
    assert message.deliver() == [[SMALL, 7, None], {"name": "text"}]
    assert memory_backend._blobs == {}


@pytest.mark.parametrize(("length", "is_stored"), [(4093, False), (4094, True)])
def test_arguments_are_offloaded_from_the_configured_size_on(
    broker: Redis, length: int, is_stored: bool
) -> None:
    echo.delay("x" * length)

    assert ("payloads" in sent(broker).headers) is is_stored


def test_equal_arguments_are_stored_once(broker: Redis, memory_backend: MemoryBackend) -> None:
    for _ in range(3):
        echo.delay(LARGE, again=list(LARGE))

    assert len(memory_backend._blobs) == 1
    assert [message.deliver() for message in waiting(broker)] == [[[LARGE], {"again": LARGE}]] * 3


def test_values_of_celerys_types_come_back_as_from_a_message(broker: Redis) -> None:
    now = datetime.datetime(2026, 1, 2, 3, 4, 5, tzinfo=datetime.UTC)
    value = [now, now.date(), uuid.UUID(int=7), decimal.Decimal("1.10"), b"bytes", {"b": 1, "a": ["x"]}]
    echo.delay(value, [value] * 300)

    message = sent(broker)

    assert message.headers["payloads"] == [-1]
    (inline, stored), _ = message.deliver()
    assert stored == [inline] * 300
    assert [list(each[-1]) for each in (inline, stored[0])] == [["b", "a"]] * 2


looks_like_a_reference = st.builds(
    lambda sha256, size, chunk: Reference(sha256.hex(), size, chunk).as_json(),
    st.binary(min_size=32, max_size=32),
    st.integers(0, 2**40),
    st.integers(1, 2**20),
) | st.just({"payloads": [-1]})


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    args=st.lists(JSON | looks_like_a_reference, max_size=3),
    kwargs=st.dictionaries(st.sampled_from(["name", "payloads", "bytes"]), JSON | looks_like_a_reference),
    data=st.data(),
)
def test_sent_values_arrive_unchanged(
    broker: Redis, in_memory: PayloadStore, configure: Any, args: list[Any], kwargs: Any, data: Any
) -> None:
    """Values that look just like references to stored values are included."""
    configure(MIN_BYTES=data.draw(st.sampled_from([1, 20, 4096])))
    secret = in_memory.put("somebody else's").as_json()
    places = st.sampled_from(range(len(args) + 1))
    args.insert(data.draw(places), data.draw(st.sampled_from([secret, [secret], {"payload": secret}, "x"])))
    kwargs["secret"] = secret

    echo.apply_async(args, kwargs, headers={"of": "others"})

    message = sent(broker)
    assert message.headers["of"] == "others"
    assert message.deliver() == [args, kwargs]


def test_header_of_the_same_name_makes_no_references(broker: Redis, in_memory: PayloadStore) -> None:
    secret = in_memory.put("somebody else's").as_json()

    echo.apply_async([secret], headers={"payloads": [-1]})

    assert sent(broker).deliver() == [[secret], {}]


@pytest.mark.parametrize("marked", [[-2], [7], ["name"], [None], [[]]])
def test_message_without_its_references_is_refused(
    broker: Redis, marked: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    echo.delay(LARGE)
    message = sent(broker)
    monkeypatch.setattr(Message, "headers", {**message.headers, "payloads": marked})

    with pytest.raises(InvalidMessageError, match="no argument"):
        message.deliver()


def test_direct_call_from_a_body_passes_its_own_arguments(broker: Redis) -> None:
    itself.delay(LARGE)

    assert sent(broker).deliver() == Reference(*reference_of(LARGE)).as_json()


def test_direct_call_is_an_ordinary_one(broker: Redis, memory_backend: MemoryBackend) -> None:
    assert echo(LARGE, name={"payload": "x"}) == [[LARGE], {"name": {"payload": "x"}}]
    assert (waiting(broker), memory_backend._blobs) == ([], {})


class TestOptingOut:
    def test_named_arguments_stay_in_the_message(self, broker: Redis) -> None:
        partly_inline.delay(LARGE, LARGE)
        partly_inline.delay(large=LARGE, small=LARGE)

        first, second = waiting(broker)
        assert (first.headers["payloads"], second.headers["payloads"]) == ([-1], ["large"])
        assert first.deliver() == second.deliver() == [LARGE, LARGE]

    def test_all_arguments_may_stay_in_the_message(
        self, broker: Redis, memory_backend: MemoryBackend
    ) -> None:
        wholly_inline.delay(LARGE, second=LARGE)

        message = sent(broker)
        assert "payloads" not in message.headers
        assert message.deliver() == [LARGE, LARGE]
        assert memory_backend._blobs == {}

    def test_message_that_is_not_json_has_all_in_it(
        self, broker: Redis, memory_backend: MemoryBackend
    ) -> None:
        echo.apply_async([LARGE], serializer="yaml")

        assert len(waiting(broker)) == 1
        assert memory_backend._blobs == {}


def test_reference_may_be_given_in_place_of_a_value(broker: Redis, in_memory: PayloadStore) -> None:
    reference = in_memory.put(LARGE)

    echo.delay(reference, name=reference)
    (echo.si(1) | echo.si(reference)).apply_async()

    first, second = waiting(broker)
    assert first.deliver() == [[LARGE], {"name": LARGE}]
    second.deliver()
    assert sent(broker).deliver() == [[LARGE], {}]


def test_value_that_is_gone_fails_the_task_with_its_key(broker: Redis, in_memory: PayloadStore) -> None:
    echo.delay(LARGE)
    (sha256,) = in_memory.backend._blobs  # type: ignore[attr-defined]  # in memory
    in_memory.delete(sha256)

    with pytest.raises(MissingPayloadError, match=sha256):
        sent(broker).deliver()


def test_nothing_is_sent_when_the_store_cannot_be_reached(redis_url: str, configure: Any) -> None:
    configure(BACKEND="redis", LOCATION=f"redis://127.0.0.1:{free_port()}/0")

    with pytest.raises(PayloadStoreUnavailableError, match="can't be reached"):
        echo.delay(LARGE)
    with Redis.from_url(redis_url) as broker:
        assert waiting(broker) == []


def test_eager_tasks_are_given_values_of_their_own(
    in_memory: PayloadStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(app.conf, "task_always_eager", True)
    look_alike = in_memory.put("other").as_json()

    assert echo.delay(LARGE, name=look_alike).get() == [[LARGE], {"name": look_alike}]
    assert echo.delay(in_memory.put(LARGE)).get() == [[LARGE], {}]
    assert chain(join.s(LARGE), join.s(LARGE))().get() == LARGE + LARGE
    assert chord([join.s(LARGE), join.s(LARGE)], echo.s()).apply_async().get() == [[[LARGE, LARGE]], {}]
    ids, more, _, _ = succeed_later.delay(LARGE, more=LARGE).get()
    assert (ids, more) == (LARGE, LARGE)
