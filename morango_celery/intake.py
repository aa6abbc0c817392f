"""How a worker takes messages in: what isn't built like one is refused, with the reason in its log.

Celery and kombu let it end the worker instead. What was delivered by then goes back to the queue, for the
next worker to be ended by.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from queue import Empty
from typing import Any

from celery import bootsteps
from celery.exceptions import InvalidTaskError
from celery.worker.strategy import default as celerys_strategy
from redis import RedisError

logger = logging.getLogger(__name__)

READER = "BRPOP"
"""What kombu's Redis channel knows its reader of queues by; no other transport has one of that name."""


class Envelopes(bootsteps.StartStopStep):
    """Refuses what is in a queue and no message at all: Redis takes any text from anybody.

    Only where the broker is Redis. What is refused is not in the queue any more.
    """

    requires = {"celery.worker.consumer.tasks:Tasks"}

    def start(self, parent: Any) -> None:
        channel = parent.task_consumer.channel
        handlers = getattr(channel, "handlers", {})
        if READER in handlers:
            handlers[READER] = _careful(channel, handlers[READER])


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
            logger.error(
                "Refused what is no message of Celery's, but was in its queue: %s: %.200s. It is dropped.",
                type(error).__name__,
                error,
            )
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
    if not isinstance(headers.get("stamped_headers"), list | None):
        return "its stamped headers are no list"
    return None if _is_addressed(headers) else "its task or id is not a text"


def _flaw_of_first_protocol(message: Any) -> str | None:
    """Of a message that has in its body what others have in their headers."""
    if "task" in (message.headers or {}):
        return None
    try:
        payload = message.decode()
    except Exception:  # whatever a decoder raises: Celery will come to it, and refuses the message then
        return None
    is_none = not isinstance(payload, dict) or "task" not in payload
    return None if is_none or _is_addressed({"id": [], **payload}) else "its task or id is not a text"


def _is_addressed(headers: dict[str, Any]) -> bool:
    match headers:
        case {"task": str(), "id": str() | int() | None}:
            return True
    return "task" not in headers


def refuse_malformed(task: Any, *arguments: Any, **options: Any) -> Callable[..., None]:
    """Celery's strategy for a task, but a message that isn't built like one for it is refused."""
    take_in = celerys_strategy(task, *arguments, **options)

    def take_in_if_sound(message: Any, *further: Any, **more: Any) -> None:
        problem = _flaw(message.payload, message.headers.get("timelimit"))
        if problem:
            raise InvalidTaskError(f"It is not built like a message for {task.name}: {problem}.")
        take_in(message, *further, **more)

    return take_in_if_sound


def _flaw(payload: object, limits: object) -> str | None:
    if isinstance(payload, dict) and "args" in payload:
        return None  # in Celery's first protocol, which it checks itself
    match payload:
        case [list(), dict(), dict() | None]:
            pass
        case _:
            return "its body is not a list of arguments, named arguments and options"
    match limits:
        case None | [int() | float() | None, int() | float() | None]:
            return None
    return "its time limits are not two numbers"
