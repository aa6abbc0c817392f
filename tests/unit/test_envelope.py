"""Messages that are built like Celery's, and others, on any transport."""

from __future__ import annotations

import math
from typing import Any

import pytest
from celery import Celery
from celery.utils.time import maybe_iso8601
from hypothesis import given
from hypothesis import strategies as st
from kombu.transport.memory import Channel
from kombu.transport.virtual import Message

from morango_celery import envelope
from morango_celery.intake import _create_careful_handler

HEADERS = (*envelope.NEEDED, *envelope.HEADERS)

GARBAGE: st.SearchStrategy[Any] = st.recursive(
    st.sampled_from([None, "", "soon", "\ud800", "x" * 70_000, [], {}, -1, 10**400, math.nan, math.inf, True])
    | st.integers()
    | st.floats()
    | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(st.text(max_size=3), inner, max_size=2),
    max_leaves=3,
)


class Consumer:
    """What Celery's consumer is to the handler: who has taken what, and which errors are the broker's."""

    connection_errors: tuple[type[Exception], ...] = ()

    def __init__(self) -> None:
        self.taken: list[Any] = []

    def create_task_handler(self) -> Any:
        return self.taken.append


def of_celery(**options: Any) -> dict[str, Any]:
    """Headers as Celery itself makes them."""
    sent = Celery(set_as_current=False).amqp.as_task_v2("an-id", "a.task", **options)
    headers: dict[str, Any] = sent.headers
    return headers


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"countdown": 5, "expires": 60, "retries": 3, "time_limit": 10, "soft_time_limit": 5.5},
        {"group_id": "a-group", "group_index": 0, "root_id": "r", "parent_id": "p", "shadow": "another"},
        {"stamped_headers": ["by"], "by": ["me"]},
    ],
)
def test_celerys_own_headers_are_sound(options: dict[str, Any]) -> None:
    assert envelope.flaw(of_celery(**options), {"correlation_id": "an-id"}, {}) is None


@given(name=st.sampled_from(HEADERS), value=GARBAGE)
def test_what_is_taken_for_sound_is_what_celery_can_read(name: str, value: Any) -> None:
    headers = {**of_celery(), name: value}
    if envelope.flaw(headers, {}, {}) is not None:
        return
    assert {headers["task"]: 1, headers["id"]: 2}
    for one in headers["timelimit"] or ():
        assert one is None or 0 <= float(one) < math.inf
    for moment in (headers["eta"], headers["expires"]):
        assert moment is None or maybe_iso8601(moment).timestamp() < math.inf
    assert set(headers.get("stamped_headers") or ()) is not None
    assert 2 ** (headers["retries"] or 0) > 0
    for header in headers.values():
        assert not isinstance(header, str) or header.encode().decode() == header


@pytest.mark.parametrize(
    ("name", "value", "text"),
    [
        ("eta", [], "its eta is not a time"),
        ("eta", "", "its eta is not a time"),
        ("expires", {}, "its expires is not a time"),
        ("timelimit", [10**400, 10**400], "its timelimit is not two numbers of seconds"),
        ("timelimit", [-1, None], "its timelimit is not two numbers of seconds"),
        ("timelimit", [math.nan, None], "its timelimit is not two numbers of seconds"),
        ("stamped_headers", [[]], "its stamped_headers is not a list of texts"),
        ("task", [1], "its task is not a text"),
        ("id", ["1"], "its id is not a text"),
    ],
)
def test_any_transports_garbage_is_refused_and_not_delivered_again(
    caplog: pytest.LogCaptureFixture, name: str, value: Any, text: str
) -> None:
    # Given a worker's handler of messages, and a message as a transport that keeps Python's values has it
    consumer = Consumer()
    handle = _create_careful_handler(consumer, consumer.create_task_handler)
    rejected: list[tuple[Any, bool]] = []

    class Broker(Channel):
        def __init__(self) -> None:
            self.no_ack_consumers = None

        def basic_reject(self, delivery_tag: Any, requeue: bool = False) -> None:
            rejected.append((delivery_tag, requeue))

    payload = {
        "body": "[[], {}, null]",
        "content-type": "application/json",
        "content-encoding": "utf-8",
        "headers": {**of_celery(), name: value},
        "properties": {"delivery_tag": "a-tag", "delivery_info": {"exchange": "", "routing_key": "celery"}},
    }

    # When it comes
    message: Any = Message
    handle(message(payload, channel=Broker()))

    # Then it is refused with its reason, and taken from the queue
    assert (consumer.taken, rejected) == ([], [("a-tag", False)])
    assert text in caplog.text
