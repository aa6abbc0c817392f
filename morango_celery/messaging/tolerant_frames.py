"""Frames of AMQP that can't be read: their messages are taken in without what is unreadable.

The client that Celery uses raises any error for a property that is no UTF-8, a time that no calendar has, or
a table that is nested too deeply. Such an error ends the worker, and the message goes to the next one. Here,
the message arrives, and the rules for messages refuse it.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Any

from morango_celery.printable import printable

logger = logging.getLogger(__name__)

Frame = tuple[int, int, bytes]
"""Type, channel, payload."""

METHOD, HEADER = 1, 2
DELIVER = b"\x00\x3c\x00\x3c"
"""The method by which RabbitMQ delivers a message: class 60, method 60."""
FIXED_BYTES = 12
"""Length of the part of a header that comes before its properties; the body's length is in it."""
NO_PROPERTIES = b"\x00\x00"

UNREADABLE = "The properties of a message can't be read: %s: %s. It is taken in without them."
MAX_FLAW_CHARACTERS = 200


def tolerant_frame_handler(
    frame_handler: Callable[..., Callable[[Frame], Any]],
    connection: Any,
    callback: Callable[..., Any],
    **options: Any,
) -> Callable[[Frame], Any]:
    """Return the client's own reader of frames, made tolerant.

    :param frame_handler: makes the client's own
    :param callback: takes in a method, or a whole message
    """
    calls = 0

    def counted(*arguments: Any) -> Any:
        nonlocal calls
        calls += 1
        return callback(*arguments)

    read = frame_handler(connection, counted, **options)

    def read_tolerantly(frame: Frame) -> Any:
        kind, channel, payload = frame
        if kind == METHOD and payload[:4] == DELIVER:
            frame = kind, channel, with_readable_address(payload)
        before = calls
        try:
            return read(frame)
        except Exception as error:  # decoders raise anything
            if kind != HEADER or calls != before:
                raise
            logger.error(UNREADABLE, type(error).__name__, printable(error, MAX_FLAW_CHARACTERS))
        return read((kind, channel, payload[:FIXED_BYTES] + NO_PROPERTIES))

    return read_tolerantly


def with_readable_address(payload: bytes) -> bytes:
    """Return a delivery's arguments, with its exchange and routing key in ASCII if they are no UTF-8.

    They are: two numbers of 16 bits, the consumer's tag, a number of 64 bits, a flag, exchange, routing key.
    """
    exchange_at = 4 + 1 + payload[4] + 8 + 1
    key_at = exchange_at + 1 + payload[exchange_at]
    end = key_at + 1 + payload[key_at]
    exchange, key = payload[exchange_at + 1 : key_at], payload[key_at + 1 : end]
    try:
        (exchange + b"\n" + key).decode()
    except UnicodeDecodeError:
        readable = exchange.decode("ascii", "replace").replace("\ufffd", "?").encode()
        readable_key = key.decode("ascii", "replace").replace("\ufffd", "?").encode()
        return b"".join(
            (
                payload[:exchange_at],
                bytes([len(readable)]),
                readable,
                bytes([len(readable_key)]),
                readable_key,
            )
        )
    return payload
