"""Raw messages, as transports read them: texts that kombu can't make a message of are dropped.

kombu raises an error for such a text instead, which ends the worker. Its virtual transports read raw texts:
Redis, and those that are polled. With RabbitMQ, `morango_celery.messaging.tolerant_frames` sees to that.
"""

from __future__ import annotations

import logging
from functools import partial
from queue import Empty
from typing import Any

from kombu.transport.redis import Channel as RedisChannel
from kombu.transport.redis import QoS as RedisQoS
from redis import RedisError
from typing_extensions import override

from morango_celery.celery_compat import (
    READER_OF_QUEUES,
    Read,
    forget_unacknowledged,
    is_polled,
    readers,
    replace_consumers,
    replace_polling,
)
from morango_celery.printable import printable
from morango_celery.worker import envelope

logger = logging.getLogger(__name__)

REFUSED = "Refused a malformed message in a queue of Celery's: %s: %s. It is dropped."
MAX_FLAW_CHARACTERS = 200
"""Length, in characters, up to which the reason for a refusal is shown; it may quote the message."""

Errors = tuple[type[Exception], ...]


def guard(channel: Any, errors: Errors, *, carries_tasks: bool) -> None:
    """Have a channel drop texts that are no messages.

    Only channels of virtual transports read raw texts. On others, messages other than tasks are guarded.

    :param errors: those of the broker and its connection, which are no message's fault
    :param carries_tasks: True if messages, once made, are handled under a guard of their own. Otherwise they
        are remote control or workers' events, whose errors must not end the worker
    """
    errors = (*errors, RedisError, OSError, Empty)
    if found := readers(channel):
        for name, read in list(found.items()):
            passes_on = carries_tasks and name == READER_OF_QUEUES
            found[name] = _guarded(channel, read, errors, passes_on=passes_on)
    elif is_polled(channel):
        replace_polling(channel, lambda poll: _guarded(channel, poll, errors, passes_on=carries_tasks))
    elif not carries_tasks:
        replace_consumers(channel, partial(_dropping, errors))


def _dropping(errors: Errors, consume: Read) -> Read:
    """Return a function that takes in a message for all workers, and drops one that it can't take in."""

    def consume_carefully(message: Any) -> object:
        try:
            return consume(message)
        except errors:
            raise
        except Exception as error:  # decoders and readers of events raise anything
            logger.error(REFUSED, type(error).__name__, printable(error, MAX_FLAW_CHARACTERS))
            return None

    return consume_carefully


def _guarded(channel: Any, read: Read, errors: Errors, *, passes_on: bool) -> Read:
    is_made = False

    class Envelope(channel.Message):
        def __init__(self, raw: Any, *arguments: Any, **options: Any) -> None:
            nonlocal is_made
            super().__init__(raw, *arguments, **options)
            flaw = _flaw_of_envelope(raw) or (_flaw_of_task(self) if passes_on else None)
            if flaw:
                raise ValueError(flaw)
            is_made = True

    def read_carefully(*arguments: Any, **options: Any) -> object:
        nonlocal is_made
        is_made = False
        # A channel has two readers, and each makes its messages by the channel's one class
        channel.Message = Envelope
        try:
            return read(*arguments, **options)
        except errors:
            raise
        except Exception as error:  # kombu raises anything for a text that it didn't write
            if is_made and passes_on:
                raise
            logger.error(REFUSED, type(error).__name__, printable(error, MAX_FLAW_CHARACTERS))
            return True

    return read_carefully


class CarefulQoS(RedisQoS):
    """A keeper of unacknowledged messages that forgets malformed ones instead of requeueing them.

    kombu would stop at such a message each time it looks, and never get to the messages after it.
    """

    @override
    def restore_by_tag(self, tag: Any, *arguments: Any, **options: Any) -> None:
        """Requeue a message that its worker has not acknowledged."""
        try:
            super().restore_by_tag(tag, *arguments, **options)  # type: ignore[no-untyped-call]  # kombu's
        except (RedisError, OSError):
            raise
        except Exception as error:  # as above
            logger.error(REFUSED, type(error).__name__, printable(error, MAX_FLAW_CHARACTERS))
            forget_unacknowledged(self, tag)


def guard_unacknowledged() -> None:
    """Have channels of Redis use `CarefulQoS`. They look for it as they connect, before any bootstep."""
    RedisChannel.QoS = CarefulQoS


def _flaw_of_envelope(raw: dict[str, Any]) -> str | None:
    """Return a flaw that would end the worker later, when the message counts as delivered; None for none."""
    match raw["properties"]:
        case {"delivery_tag": str() | int(), "delivery_info": {"exchange": _, "routing_key": _}}:
            pass
        case _:
            return "its properties don't say where it was sent"
    if not isinstance(raw.get("body"), str):
        return "its body is not a text"
    if not all(isinstance(raw.get(name), str | None) for name in ("content-type", "content-encoding")):
        return "its content type or encoding is not a text"
    return None if isinstance(raw.get("headers") or {}, dict) else "its headers are not named"


def _flaw_of_task(message: Any) -> str | None:
    if "task" in message.headers:
        return envelope.flaw(message.headers, message.properties, message.delivery_info)
    return envelope.flaw_of(message.headers) or flaw_of_first_protocol(message)


def flaw_of_first_protocol(message: Any) -> str | None:
    """Return the flaw of a message of Celery's first protocol, whose body has the headers inside.

    :returns: None if it has none, or is of another protocol
    """
    if "task" in (message.headers or {}):
        return None
    try:
        payload = message.decode()
    except Exception:  # decoders raise anything; Celery decodes later, and refuses the message then
        return None
    if not isinstance(payload, dict) or "task" not in payload:
        return None
    return envelope.flaw(payload, message.properties, message.delivery_info)
