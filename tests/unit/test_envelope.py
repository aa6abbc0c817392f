"""Messages that are built like Celery's, and others, on any transport."""

from __future__ import annotations

import json
import math
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any

import pytest
from celery import Celery, group
from celery.utils.time import maybe_iso8601
from hypothesis import given
from hypothesis import strategies as st
from kombu.transport import pyamqp
from kombu.transport.memory import Channel
from kombu.transport.virtual import Message
from kombu.utils.json import dumps
from typing_extensions import override

from morango_celery.worker import envelope
from morango_celery.worker.message_validation import _create_validating_handler
from morango_celery.worker.newer_messages import NewerMessages

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
    """Celery's consumer as the handler sees it: taken messages, and errors of the broker."""

    connection_errors: tuple[type[Exception], ...] = (ConnectionError, KeyError)
    channel_errors: tuple[type[Exception], ...] = ()

    def __init__(self, raising: Exception | None = None) -> None:
        self.taken: list[Any] = []
        self.raising = raising

    def create_task_handler(self) -> Any:
        return self.take

    def take(self, message: Any) -> None:
        if self.raising is not None:
            raise self.raising
        self.taken.append(message)


class Broker(Channel):
    """Channel that records rejected messages, and if they are to come again."""

    def __init__(self) -> None:
        self.no_ack_consumers = None
        self.rejected: list[tuple[Any, bool]] = []

    @override
    def basic_reject(self, delivery_tag: Any, requeue: bool = False) -> None:
        self.rejected.append((delivery_tag, requeue))

    def message(self, headers: dict[str, Any]) -> Any:
        payload = {
            "body": "[[], {}, null]",
            "content-type": "application/json",
            "content-encoding": "utf-8",
            "headers": {**of_celery(), **headers},
            "properties": {
                "delivery_tag": "a-tag",
                "delivery_info": {"exchange": "", "routing_key": "celery"},
            },
        }
        build: Any = Message
        return build(payload, channel=self)

    def message_of_amqp(self, headers: dict[str, Any]) -> Any:
        """Return a message of that transport, with headers of the protocol's own types."""
        properties = {"content_type": "application/json", "content_encoding": "utf-8"}
        protocol: Any = pyamqp
        sent = protocol.amqp.Message(
            "[[], {}, null]", application_headers={**of_celery(), **headers}, **properties
        )
        sent.delivery_info = {
            "delivery_tag": 7,
            "redelivered": False,
            "exchange": "",
            "routing_key": "celery",
        }
        return protocol.Message(sent, channel=self)


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
def test_message_that_passes_validation_can_be_read_by_celery(name: str, value: Any) -> None:
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
    consumer, broker = Consumer(), Broker()
    handle = _create_validating_handler(consumer, consumer.create_task_handler, NewerMessages(consumer))

    # When it comes
    handle(broker.message({name: value}))

    # Then it is refused with its reason, and taken from the queue
    assert (consumer.taken, broker.rejected) == ([], [("a-tag", False)])
    assert text in caplog.text


@pytest.mark.parametrize(
    ("headers", "text"),
    [
        ({"task": datetime(2026, 1, 1, tzinfo=UTC)}, "its task is not a text"),
        ({"id": Decimal(1)}, "its id is not a text"),
        ({"eta": Decimal(1)}, "its eta is not a time"),
        ({"expires": b"2026-01-01"}, "its expires is not a time"),
        ({"timelimit": [Decimal("NaN"), None]}, "its timelimit is not two numbers of seconds"),
        ({"stamped_headers": {"by": "me"}}, "its stamped_headers is not a list of texts"),
    ],
)
def test_values_that_only_amqp_has_are_refused(
    caplog: pytest.LogCaptureFixture, headers: dict[str, Any], text: str
) -> None:
    consumer, broker = Consumer(), Broker()
    handle = _create_validating_handler(consumer, consumer.create_task_handler, NewerMessages(consumer))

    handle(broker.message_of_amqp(headers))
    handle(sound := broker.message_of_amqp({}))

    assert (consumer.taken, broker.rejected) == ([sound], [(7, False)])
    assert text in caplog.text


def test_unforeseen_error_ends_as_a_refused_message(caplog: pytest.LogCaptureFixture) -> None:
    consumer, broker = Consumer(raising=KeyError("unforeseen")), Broker()

    _create_validating_handler(consumer, consumer.create_task_handler, NewerMessages(consumer))(
        broker.message({})
    )

    assert broker.rejected == [("a-tag", False)]
    assert "KeyError: 'unforeseen'. It is dropped." in caplog.text


@pytest.mark.parametrize("error", [ConnectionError("lost"), MemoryError()])
def test_errors_of_the_broker_are_no_messages_fault(error: Exception) -> None:
    consumer, broker = Consumer(raising=error), Broker()
    handle = _create_validating_handler(consumer, consumer.create_task_handler, NewerMessages(consumer))

    with pytest.raises(type(error)):
        handle(broker.message({}))
    assert broker.rejected == []


def test_rejected_message_is_not_refused_as_well() -> None:
    consumer, broker = Consumer(raising=ValueError("too late")), Broker()
    message = broker.message({})
    message.reject()

    handle = _create_validating_handler(consumer, consumer.create_task_handler, NewerMessages(consumer))
    handle(message)

    assert broker.rejected == [("a-tag", False)]


SIGNATURE = {"task": "a.task", "args": [], "kwargs": {}, "options": {}, "subtask_type": None}


@pytest.mark.parametrize(
    ("name", "value", "is_sound"),
    [
        ("callbacks", [SIGNATURE], True),
        ("chain", [SIGNATURE], True),
        ("chord", SIGNATURE, True),
        ("chord", {**SIGNATURE, "options": None}, True),
        ("callbacks", SIGNATURE, False),
        ("errbacks", ["a.task"], False),
        ("chain", [{**SIGNATURE, "task": 5}], False),
        ("chain", [{**SIGNATURE, "args": 5}], False),
        ("chord", {**SIGNATURE, "options": [1]}, False),
        ("chord", {**SIGNATURE, "subtask_type": []}, False),
        ("chord", [SIGNATURE], False),
    ],
)
def test_callbacks_of_a_task_have_to_be_tasks(name: str, value: Any, is_sound: bool) -> None:
    body = [[], {}, {"callbacks": None, "errbacks": None, "chain": None, "chord": None, name: value}]
    assert (envelope.flaw_of_body(body) is None) is is_sound


def test_celerys_own_links_chains_and_chords_are_sound() -> None:
    app = Celery(set_as_current=False)
    link = app.signature("a.task", args=(1,), kwargs={"a": 2}, countdown=5)
    follows = {"callbacks": [link], "errbacks": [link], "chain": [link], "chord": group(link) | link}
    sent = app.amqp.as_task_v2("an-id", "a.task", **follows)
    json_of: Any = dumps
    assert envelope.flaw_of_body(json.loads(json_of(sent.body))) is None
