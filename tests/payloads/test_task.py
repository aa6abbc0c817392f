"""`PayloadTask`: its messages and its body's arguments, with Celery's own messages in a real Redis."""

from __future__ import annotations

import datetime
import decimal
import uuid
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from celery import chain, chord, group
from django.db import transaction
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from redis import Redis

from morango_celery.errors import (
    InvalidMessageError,
    MessageTooLargeError,
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
    plain,
    succeed_later,
    wholly_inline,
)
from tests.payloads.values import JSON
from worker.services import free_port

# Celery's backend for results in Redis, with a newer client than it knows
pytestmark = pytest.mark.filterwarnings("ignore:Call to deprecated:DeprecationWarning")

LARGE = [f"{number:032x}" for number in range(500)]
SMALL = ["small"]


@pytest.fixture
def client(redis_url: str, in_memory: PayloadStore) -> Iterator[Redis]:
    with Redis.from_url(redis_url) as found:
        yield found


@pytest.fixture
def backend(in_memory: PayloadStore) -> MemoryBackend:
    assert isinstance(in_memory.backend, MemoryBackend)
    return in_memory.backend


def sent(client: Redis) -> Message:
    (message,) = waiting(client)
    return message


def test_large_argument_travels_as_a_reference_and_a_small_one_as_it_is(client: Redis) -> None:
    echo.delay(SMALL, LARGE, name=LARGE)

    message = sent(client)
    assert LARGE[0].encode() not in message.body
    assert b'["small"]' in message.body
    assert sorted(message.headers["payloads"], key=str) == [-1, "name"]
    assert message.deliver() == [[SMALL, LARGE], {"name": LARGE}]


def test_message_without_large_arguments_is_like_any_other(client: Redis, backend: MemoryBackend) -> None:
    echo.delay(SMALL, 7, None, name="text")

    message = sent(client)
    assert "payloads" not in message.headers
    assert message.deliver() == [[SMALL, 7, None], {"name": "text"}]
    assert backend._blobs == {}


@pytest.mark.parametrize(("length", "is_stored"), [(4093, False), (4094, True)])
def test_arguments_are_offloaded_from_the_configured_size_on(
    client: Redis, length: int, is_stored: bool
) -> None:
    echo.delay("x" * length)

    assert ("payloads" in sent(client).headers) is is_stored


def test_equal_arguments_are_stored_once(client: Redis, backend: MemoryBackend) -> None:
    for _ in range(3):
        echo.delay(LARGE, again=list(LARGE))

    assert len(backend._blobs) == 1
    assert [message.deliver() for message in waiting(client)] == [[[LARGE], {"again": LARGE}]] * 3


def test_values_of_celerys_types_come_back_as_from_a_message(client: Redis) -> None:
    now = datetime.datetime(2026, 1, 2, 3, 4, 5, tzinfo=datetime.UTC)
    value = [now, now.date(), uuid.UUID(int=7), decimal.Decimal("1.10"), b"bytes", {"b": 1, "a": ["x"]}]
    echo.delay(value, [value] * 300)

    message = sent(client)

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
    client: Redis, in_memory: PayloadStore, configure: Any, args: list[Any], kwargs: Any, data: Any
) -> None:
    """Values that look just like references to stored values are included."""
    configure(MIN_BYTES=data.draw(st.sampled_from([1, 20, 4096])))
    secret = in_memory.put("somebody else's").as_json()
    places = st.sampled_from(range(len(args) + 1))
    args.insert(data.draw(places), data.draw(st.sampled_from([secret, [secret], {"payload": secret}, "x"])))
    kwargs["secret"] = secret

    echo.apply_async(args, kwargs, headers={"of": "others"})

    message = sent(client)
    assert message.headers["of"] == "others"
    assert message.deliver() == [args, kwargs]


def test_header_of_the_same_name_makes_no_references(client: Redis, in_memory: PayloadStore) -> None:
    secret = in_memory.put("somebody else's").as_json()

    echo.apply_async([secret], headers={"payloads": [-1]})

    assert sent(client).deliver() == [[secret], {}]


@pytest.mark.parametrize("marked", [[-2], [7], ["name"], [None], [[]]])
def test_message_without_its_references_is_refused(
    client: Redis, marked: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    echo.delay(LARGE)
    message = sent(client)
    monkeypatch.setattr(Message, "headers", {**message.headers, "payloads": marked})

    with pytest.raises(InvalidMessageError, match="no argument"):
        message.deliver()


def test_direct_call_from_a_body_passes_its_own_arguments(client: Redis) -> None:
    itself.delay(LARGE)

    assert sent(client).deliver() == Reference(*_reference_of(LARGE)).as_json()


def _reference_of(value: Any) -> tuple[str, int | None]:
    reference = PayloadStore(MemoryBackend()).put(value)
    return reference.sha256, reference.size_bytes


def test_direct_call_is_an_ordinary_one(client: Redis, backend: MemoryBackend) -> None:
    assert echo(LARGE, name={"payload": "x"}) == [[LARGE], {"name": {"payload": "x"}}]
    assert (waiting(client), backend._blobs) == ([], {})


class TestOptingOut:
    def test_named_arguments_stay_in_the_message(self, client: Redis) -> None:
        partly_inline.delay(LARGE, LARGE)
        partly_inline.delay(large=LARGE, small=LARGE)

        first, second = waiting(client)
        assert (first.headers["payloads"], second.headers["payloads"]) == ([-1], ["large"])
        assert first.deliver() == second.deliver() == [LARGE, LARGE]

    def test_all_arguments_may_stay_in_the_message(self, client: Redis, backend: MemoryBackend) -> None:
        wholly_inline.delay(LARGE, second=LARGE)

        message = sent(client)
        assert "payloads" not in message.headers
        assert message.deliver() == [LARGE, LARGE]
        assert backend._blobs == {}

    def test_message_that_is_not_json_has_all_in_it(self, client: Redis, backend: MemoryBackend) -> None:
        echo.apply_async([LARGE], serializer="yaml")

        assert len(waiting(client)) == 1
        assert backend._blobs == {}


class TestTheWholeMessage:
    def test_many_small_arguments_are_stored_the_largest_first_until_the_rest_fits(
        self, client: Redis, configure: Any
    ) -> None:
        configure(MAX_MESSAGE_BYTES=6000)
        arguments = ["a" * 1000, "b" * 3000, "c" * 2000, "d" * 2500]
        echo.delay(*arguments)

        message = sent(client)
        assert message.headers["payloads"] == [-3]  # 8,508 bytes without the largest are 5,506
        assert message.deliver() == [arguments, {}]

    def test_message_too_large_for_inline_arguments_is_refused(
        self, client: Redis, configure: Any, backend: MemoryBackend
    ) -> None:
        configure(MAX_MESSAGE_BYTES=6000)

        with pytest.raises(MessageTooLargeError, match=r"are 17,501 bytes, .* is 6,000"):
            wholly_inline.delay(LARGE)
        assert (waiting(client), backend._blobs) == ([], {})

    def test_arguments_of_linked_tasks_count_too(self, client: Redis, configure: Any) -> None:
        configure(MAX_MESSAGE_BYTES=3000)
        (echo.s("a" * 1000) | echo.si("b" * 1500) | echo.si("c" * 1800)).apply_async()

        message = sent(client)
        assert b"ccc" not in message.body
        assert b"bbb" in message.body


class TestLinkedTasks:
    """Arguments that one message takes along for the next ones."""

    def test_no_message_of_a_chain_has_a_large_argument(self, client: Redis, backend: MemoryBackend) -> None:
        more = [[f"{letter}{one}" for one in LARGE] for letter in "ab"]
        chain(join.s(LARGE), join.s(more[0]), join.s(more[1])).apply_async()
        bodies = []

        while messages := waiting(client):
            (message,) = messages
            bodies.append(message.body)
            result = message.deliver()

        assert result == LARGE + more[0] + more[1]
        assert [LARGE[0].encode() in body for body in bodies] == [False] * 3
        assert len(backend._blobs) == 4  # three arguments, the first of which is a result too, and another

    def test_immutable_signature_is_given_nothing_before_its_own(self, client: Redis) -> None:
        (plain.s(1) | partly_inline.si(SMALL, LARGE)).apply_async()
        (echo.s(1) | partly_inline.si(SMALL, LARGE)).apply_async()

        of_another_class, ours = waiting(client)
        of_another_class.deliver()
        ours.deliver()
        first, second = waiting(client)
        assert LARGE[0].encode() in of_another_class.body
        assert LARGE[0].encode() not in ours.body
        assert first.deliver() == second.deliver() == [SMALL, LARGE]

    def test_opting_out_counts_the_result_that_comes_first(self, client: Redis) -> None:
        """The second argument of ``partly_inline(result, large)`` may be stored."""
        (echo.s(1) | partly_inline.s(LARGE)).apply_async()

        message = sent(client)
        assert LARGE[0].encode() not in message.body
        message.deliver()
        assert sent(client).deliver() == [[[1], {}], LARGE]

    def test_arguments_of_callbacks_and_their_parts_are_offloaded(self, client: Redis) -> None:
        last = group(join.s(LARGE), chain(join.s(LARGE), join.s(["end"])))
        join.apply_async([["begin"]], link=[join.s(LARGE), last])

        message = sent(client)
        assert LARGE[0].encode() not in message.body
        results = [message.deliver()]
        while messages := waiting(client):
            for message in messages:
                assert LARGE[0].encode() not in message.body
                results.append(message.deliver())
        assert sorted(map(len, results)) == [1, 501, 501, 501, 502]

    def test_arguments_of_a_chords_body_are_offloaded(self, client: Redis) -> None:
        chord([join.s(LARGE), join.s(["x"])], join.s(LARGE)).apply_async()

        for message in waiting(client):
            assert LARGE[0].encode() not in message.body

    def test_callbacks_of_errors_stay_inline_for_celery_may_call_them_itself(self, client: Redis) -> None:
        echo.apply_async([1], link_error=echo.s(LARGE))

        assert LARGE[0].encode() in sent(client).body

    def test_signature_itself_is_not_changed(self, client: Redis) -> None:
        first, second = join.s(LARGE), join.s(LARGE)
        work = chain(first, second)
        work.apply_async()
        work.apply_async()

        assert first.args == second.args == (LARGE,)
        assert [message.deliver() for message in waiting(client)] == [LARGE, LARGE]


class TestRetries:
    def test_retry_stores_nothing_and_wraps_nothing_again(
        self, client: Redis, backend: MemoryBackend
    ) -> None:
        succeed_later.delay(LARGE, more=LARGE)
        stored = dict(backend._blobs)
        bodies = []

        while messages := waiting(client):
            (message,) = messages
            bodies.append(message.body)
            result = message.deliver()

        ids, more, args, headers = result
        reference = Reference(*_reference_of(LARGE)).as_json()
        assert len(bodies) == 3
        assert bodies[0].partition(b"null")[0] == bodies[2].partition(b"null")[0]
        assert (ids, more, args, backend._blobs) == (LARGE, LARGE, [reference], stored)
        assert headers == {"payloads": [-1, "more"]}

    def test_retry_with_other_arguments_sends_these(self, client: Redis) -> None:
        succeed_later.delay(LARGE, more=LARGE)
        headers = sent(client).headers
        request = type(succeed_later.request)({**headers, "args": [1], "kwargs": {"more": LARGE}})

        with_args = succeed_later.signature_from_request(request, args=[{"payload": "mine"}])
        with_both = succeed_later.signature_from_request(request, args=[1], kwargs={})

        assert headers["payloads"] == [-1, "more"]
        assert with_args.options["payloads"] == ["more"]
        assert "payloads" not in with_both.options

    def test_referenced_value_is_kept_for_the_retry(
        self, client: Redis, backend: MemoryBackend, configure: Any
    ) -> None:
        succeed_later.delay(LARGE)
        before = dict(backend._expires_at)
        configure(TTL_SECONDS=30 * 24 * 60 * 60)

        sent(client).deliver()

        assert all(backend._expires_at[key] > until + 20 * 24 * 60 * 60 for key, until in before.items())


@pytest.mark.parametrize(
    "options",
    [
        lambda: {"countdown": 1_000_000},
        lambda: {"eta": datetime.datetime.now(datetime.UTC) + datetime.timedelta(seconds=1_000_000)},
    ],
    ids=["countdown", "eta"],
)
def test_value_of_a_delayed_message_is_kept_for_longer(
    client: Redis, backend: MemoryBackend, options: Callable[[], dict[str, Any]]
) -> None:
    echo.apply_async([LARGE])
    (before,) = backend._expires_at.values()
    echo.apply_async([LARGE], **options())

    assert next(iter(backend._expires_at.values())) - before == pytest.approx(1_000_000, abs=60)


def test_reference_may_be_given_in_place_of_a_value(client: Redis, in_memory: PayloadStore) -> None:
    reference = in_memory.put(LARGE)

    echo.delay(reference, name=reference)
    (echo.si(1) | echo.si(reference)).apply_async()

    first, second = waiting(client)
    assert first.deliver() == [[LARGE], {"name": LARGE}]
    second.deliver()
    assert sent(client).deliver() == [[LARGE], {}]


def test_value_that_is_gone_fails_the_task_with_its_key(client: Redis, in_memory: PayloadStore) -> None:
    echo.delay(LARGE)
    (sha256,) = in_memory.backend._blobs  # type: ignore[attr-defined]  # in memory
    in_memory.delete(sha256)

    with pytest.raises(MissingPayloadError, match=sha256):
        sent(client).deliver()


def test_nothing_is_sent_when_the_store_cannot_be_reached(redis_url: str, configure: Any) -> None:
    configure(BACKEND="redis", LOCATION=f"redis://127.0.0.1:{free_port()}/0")

    with pytest.raises(PayloadStoreUnavailableError, match="can't be reached"):
        echo.delay(LARGE)
    with Redis.from_url(redis_url) as client:
        assert waiting(client) == []


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


@pytest.mark.django_db(transaction=True)
class TestInATransaction:
    @pytest.fixture(autouse=True)
    def _in_the_database(self, client: Redis, configure: Any) -> None:
        configure(BACKEND="database", LOCATION="")

    def test_delay_on_commit_stores_and_sends_when_that_is_committed(self, client: Redis) -> None:
        with transaction.atomic():
            echo.delay_on_commit(LARGE)
            echo.apply_async_on_commit([LARGE], {"name": LARGE})
            assert waiting(client) == []

        assert [message.deliver() for message in waiting(client)] == [
            [[LARGE], {}],
            [[LARGE], {"name": LARGE}],
        ]

    def test_value_stored_in_a_rolled_back_transaction_is_gone(self, client: Redis) -> None:
        with transaction.atomic():
            echo.delay(LARGE)
            transaction.set_rollback(True)

        with pytest.raises(MissingPayloadError, match="or was rolled back"):
            sent(client).deliver()
