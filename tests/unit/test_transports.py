"""Transports: words for brokers, numbers of priorities, and frames of AMQP that can't be read."""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from amqp import spec
from amqp.basic_message import Message
from amqp.method_framing import frame_handler
from celery import Celery

from morango_celery.messaging.priorities import PRIORITIES
from morango_celery.messaging.tolerant_frames import (
    DELIVER,
    HEADER,
    METHOD,
    tolerant_frame_handler,
    with_readable_address,
)
from morango_celery.messaging.transports import driver_type, driver_type_of, number_of
from worker.celery import app as deployed

BODY = 3


@pytest.fixture
def sends_to() -> Iterator[Callable[..., None]]:
    """Yield a function that makes this process's application send to a broker."""

    def configure(**options: Any) -> None:
        Celery("host", fixups=[], changes=options).set_current()

    yield configure
    deployed.set_current()


@pytest.mark.parametrize(
    ("url", "transport", "word"),
    [
        ("redis://redis/0", None, "redis"),
        ("rediss://redis/0", None, "redis"),
        ("sentinel://one:26379", None, "redis"),
        ("amqp://rabbit//", None, "amqp"),
        ("amqps://rabbit//", None, "amqp"),
        ("pyamqp://rabbit//", None, "amqp"),
        ("//", None, "amqp"),
        ("memory://", None, "memory"),
        ("//host", "redis", "redis"),
        ("no-such://host", None, ""),
    ],
)
def test_word_for_a_broker_is_kombus(url: str, transport: str | None, word: str) -> None:
    assert driver_type_of(url, transport) == word


def test_first_broker_that_is_written_to_counts(sends_to: Callable[..., None]) -> None:
    sends_to(broker_url="redis://redis/0", broker_write_url="amqp://one//;amqp://two//")
    assert driver_type() == "amqp"
    sends_to(broker_url=["redis://redis/0", "amqp://one//"])
    assert driver_type() == "redis"


def test_more_urgent_messages_have_higher_numbers_with_rabbitmq_alone(
    sends_to: Callable[..., None],
) -> None:
    sends_to(broker_url="redis://redis/0")
    assert [number_of(urgency) for urgency in (None, *PRIORITIES)] == [None, *PRIORITIES]

    sends_to(broker_url="amqp://rabbit//")
    assert [number_of(urgency) for urgency in (None, *PRIORITIES)] == [9, 9, 6, 3, 0]


class Connection:
    bytes_recv = 0


def short(value: bytes) -> bytes:
    return bytes([len(value)]) + value


def delivery(exchange: bytes = b"", key: bytes = b"celery", tag: int = 200) -> bytes:
    return DELIVER + short(b"consumer") + struct.pack(">Q", tag) + b"\1" + short(exchange) + short(key)


def header(properties: bytes, body_bytes: int) -> bytes:
    return struct.pack(">HHQ", 60, 0, body_bytes) + properties


def taken_in(*frames: tuple[int, bytes]) -> list[Message]:
    messages: list[Message] = []
    read = tolerant_frame_handler(
        frame_handler, Connection(), lambda channel, method, arguments, message: messages.append(message)
    )
    for kind, payload in frames:
        read((kind, 1, payload))
    return messages


READABLE = struct.pack(">H", 1 << 15) + short(b"application/json")
UNREADABLE = struct.pack(">H", 1 << 15) + short(b"\xff")


@pytest.mark.parametrize(
    ("properties", "taken"), [(READABLE, {"content_type": "application/json"}), (UNREADABLE, {})]
)
@pytest.mark.parametrize("body", [b"", b"text"])
def test_message_arrives_without_properties_that_can_not_be_read(
    properties: bytes, taken: dict[str, str], body: bytes
) -> None:
    frames = [(METHOD, delivery()), (HEADER, header(properties, len(body)))]
    if body:
        frames.append((BODY, body))

    messages = taken_in(*frames, *frames)

    assert [message.properties for message in messages] == [taken, taken]
    assert [message.body for message in messages] == [body or ""] * 2
    assert messages[0].frame_method == spec.Basic.Deliver


def test_error_of_the_one_who_takes_a_message_in_is_passed_on() -> None:
    calls = []

    def refuse(*arguments: Any) -> None:
        calls.append(arguments)
        raise UnicodeDecodeError("utf-8", b"", 0, 1, "his own")

    read = tolerant_frame_handler(frame_handler, Connection(), refuse)
    read((METHOD, 1, delivery()))
    with pytest.raises(UnicodeDecodeError, match="his own"):
        read((HEADER, 1, header(b"\0\0", 0)))
    assert len(calls) == 1


def test_address_that_is_no_text_is_made_one() -> None:
    readable = delivery("straße".encode(), "größe".encode())
    assert with_readable_address(readable) is readable
    assert with_readable_address(delivery(b"\xffa", b"k\xfe")) == delivery(b"?a", b"k?")
