"""How a worker takes messages in: what isn't built like one is refused, with the reason in its log.

Celery and kombu let it end the worker instead. What was delivered by then goes back to the queue, for the
next worker to be ended by.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from functools import partial
from queue import Empty
from typing import Any

from celery import bootsteps
from celery.exceptions import InvalidTaskError
from celery.worker.strategy import default as celerys_strategy
from redis import RedisError

from morango_celery import envelope

logger = logging.getLogger(__name__)

SHORTEST_LIMIT_SECONDS = 1
"""Of time limits that a message of ours brings along."""
MOST_RETRIES = 1000

REFUSED = "Refused what is no message of Celery's, but was in its queue: %s: %.200s. It is dropped."
READER = "BRPOP"
"""What kombu's Redis channel knows its reader of queues by; no other transport has one of that name."""


class Envelopes(bootsteps.StartStopStep):
    """Refuses what is in a queue and no message of Celery's. It is not in the queue any more then.

    Redis takes any text from anybody. Other brokers take any headers, properties and body.
    """

    requires = {"celery.worker.consumer.tasks:Tasks"}

    def start(self, parent: Any) -> None:
        if "create_task_handler" not in vars(parent):  # from the second connection on, it is there
            parent.create_task_handler = partial(_create_careful_handler, parent, parent.create_task_handler)
        channel = parent.task_consumer.channel
        handlers = getattr(channel, "handlers", {})
        if READER in handlers:
            handlers[READER] = _careful(channel, handlers[READER])


def _create_careful_handler(parent: Any, create: Callable[[], Callable[[Any], object]]) -> Any:
    """Return Celery's handler of messages, but one that refuses what isn't built like one."""
    take_in = create()

    def take_in_if_sound(message: Any) -> object:
        flaw = _flaw_of_message(message)
        if flaw is None:
            return take_in(message)
        logger.error(REFUSED, "Message", flaw)
        message.reject_log_error(logger, parent.connection_errors)
        return None

    return take_in_if_sound


def _flaw_of_message(message: Any) -> str | None:
    headers = message.headers
    if isinstance(headers, Mapping) and "task" not in headers:
        return _flaw_of_first_protocol(message)
    found = envelope.flaw(headers, message.properties, message.delivery_info)
    if found:
        return found
    try:
        body = message.payload
    except Exception:  # whatever a decoder raises: Celery will come to it, and refuses the message then
        return None
    return envelope.flaw_of_body(body)


def _careful(channel: Any, read: Callable[..., object]) -> Callable[..., object]:
    is_open = False

    class Envelope(channel.Message):
        def __init__(self, raw: Any, *arguments: Any, **options: Any) -> None:
            nonlocal is_open
            super().__init__(raw, *arguments, **options)
            flaw = _flaw_of_envelope(raw) or _flaw_of_first_protocol(self)
            if flaw:
                raise ValueError(flaw)
            is_open = True

    def read_carefully(**options: Any) -> object:
        nonlocal is_open
        is_open = False
        try:
            return read(**options)
        except (RedisError, OSError, Empty):
            raise
        except Exception as error:  # whatever kombu comes upon in a text that it didn't write
            if is_open:
                raise
            logger.error(REFUSED, type(error).__name__, error)
            return True

    channel.Message = Envelope
    return read_carefully


def _flaw_of_envelope(raw: dict[str, Any]) -> str | None:
    """What would end the worker later, when the message counts as delivered."""
    match raw["properties"]:
        case {"delivery_tag": str() | int(), "delivery_info": {"exchange": _, "routing_key": _}}:
            pass
        case _:
            return "its properties don't say where it was sent"
    if not isinstance(raw.get("body"), str):
        return "its body is not a text"
    if not all(isinstance(raw.get(name), str | None) for name in ("content-type", "content-encoding")):
        return "its content type or encoding is not a text"
    headers = raw.get("headers") or {}
    if not isinstance(headers, dict):
        return "its headers are not named"
    if "task" in headers:
        properties = raw["properties"]
        return envelope.flaw(headers, properties, properties["delivery_info"])
    return envelope.flaw_of(headers)


def _flaw_of_first_protocol(message: Any) -> str | None:
    """Of a message that has in its body what others have in their headers."""
    if "task" in (message.headers or {}):
        return None
    try:
        payload = message.decode()
    except Exception:  # whatever a decoder raises: Celery will come to it, and refuses the message then
        return None
    if not isinstance(payload, dict) or "task" not in payload:
        return None
    return envelope.flaw(payload, message.properties, message.delivery_info)


def refuse_malformed(task: Any, *arguments: Any, **options: Any) -> Callable[..., None]:
    """Celery's strategy for a task, but a message that isn't built like one for it is refused."""
    take_in = celerys_strategy(task, *arguments, **options)

    def take_in_if_sound(message: Any, *further: Any, **more: Any) -> None:
        problem = envelope.flaw_of_body(message.payload) or _flaw_for_ours(message.headers)
        if problem:
            raise InvalidTaskError(f"It is not built like a message for {task.name}: {problem}.")
        take_in(message, *further, **more)

    return take_in_if_sound


def _flaw_for_ours(headers: Mapping[str, Any]) -> str | None:
    """Return what is sound for others' tasks, and would have one of ours killed and delivered without end."""
    limits = headers.get("timelimit")
    if limits and any(limit is not None and limit < SHORTEST_LIMIT_SECONDS for limit in limits):
        return "its time limits end it before it can begin"
    if (headers.get("retries") or 0) > MOST_RETRIES:
        return "it was tried too often"
    return None
