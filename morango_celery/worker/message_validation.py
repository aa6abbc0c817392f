"""Validation of messages as a worker takes them in: a malformed one is refused, with the reason in the log.

Celery and kombu let such a message end the worker instead. Everything delivered by then is requeued,
and ends the next worker.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

from celery import bootsteps
from celery.exceptions import InvalidTaskError

from morango_celery.celery_compat import celerys_strategy, replace_task_handler
from morango_celery.printable import printable
from morango_celery.worker import envelope
from morango_celery.worker.channels import each_channel, errors_of_broker
from morango_celery.worker.newer_messages import NewerMessages, is_newer
from morango_celery.worker.raw_messages import MAX_FLAW_CHARACTERS, REFUSED, flaw_of_first_protocol, guard
from morango_celery.worker.state import is_at_hand

logger = logging.getLogger(__name__)

MIN_LIMIT_SECONDS = 1
"""Shortest time limit that a message of ours may bring along."""
MAX_RETRIES = 1000

UNEXPECTED = "A message for %.200r could not be taken in."

MAX_ETA_SECONDS = 24 * 60 * 60
"""Farthest time ahead that a message of ours may name. A minute is enough, but clocks may be wrong."""


class DropMalformedMessages(bootsteps.StartStopStep):
    """A bootstep that refuses malformed messages and so takes them out of their queue.

    Redis takes any text from anybody. Other brokers take any headers, properties and body.
    """

    requires = {"celery.worker.consumer.tasks:Tasks", "celery.worker.consumer.control:Control"}

    def start(self, parent: Any) -> None:
        replace_task_handler(
            parent, lambda create: partial(_create_validating_handler, parent, create, NewerMessages(parent))
        )
        errors, of_tasks = errors_of_broker(parent), parent.task_consumer.channel
        each_channel(
            parent.connection, lambda channel: guard(channel, errors, carries_tasks=channel is of_tasks)
        )


def _create_validating_handler(
    parent: Any, create: Callable[[], Callable[[Any], object]], newer: NewerMessages
) -> Any:
    """Return Celery's handler of messages, wrapped in one that refuses malformed messages.

    Messages of a newer form are no malformed ones; they are requeued.
    """
    take_in = create()
    newer.begin_connection()
    errors: tuple[type[Exception], ...] = (*errors_of_broker(parent), MemoryError)

    def take_in_if_sound(message: Any) -> object:
        flaw = _flaw_of_message(message)
        if flaw is None:
            if is_newer(message):
                newer.hold(message)
                return None
            try:
                return take_in(message)
            except errors:
                raise
            except Exception as error:  # a flaw that no rule covers; it would end the worker
                logger.exception(UNEXPECTED, message.headers.get("task"))
                if is_at_hand(message):
                    return None
                flaw = f"{type(error).__name__}: {error}"
        logger.error(REFUSED, "Message", printable(flaw, MAX_FLAW_CHARACTERS))
        message.reject_log_error(logger, parent.connection_errors)
        return None

    return take_in_if_sound


def _flaw_of_message(message: Any) -> str | None:
    headers = message.headers
    if isinstance(headers, Mapping) and "task" not in headers:
        return flaw_of_first_protocol(message)
    found = envelope.flaw(headers, message.properties, message.delivery_info)
    if found:
        return found
    try:
        body = message.payload
    except Exception:  # decoders raise anything; Celery decodes later, and refuses the message then
        return None
    return envelope.flaw_of_body(body)


def refuse_malformed(task: Any, *arguments: Any, **options: Any) -> Callable[..., None]:
    """Return Celery's strategy for a task, which then refuses messages that are malformed for this task."""
    take_in = celerys_strategy()(task, *arguments, **options)

    def take_in_if_sound(message: Any, *further: Any, **more: Any) -> None:
        problem = envelope.flaw_of_body(message.payload) or _flaw_for_ours(message.headers)
        if problem:
            raise InvalidTaskError(f"It is not built like a message for {task.name}: {printable(problem)}.")
        take_in(message, *further, **more)

    return take_in_if_sound


def _flaw_for_ours(headers: Mapping[str, Any]) -> str | None:
    """Return the flaw of headers that are sound for others' tasks, but would have one of ours killed and
    delivered without end; None if there is none."""
    limits = headers.get("timelimit")
    if limits and any(limit is not None and limit < MIN_LIMIT_SECONDS for limit in limits):
        return "its time limits end it before it can begin"
    if (headers.get("retries") or 0) > MAX_RETRIES:
        return "it was tried too often"
    eta = headers.get("eta")
    if eta and envelope.moment_of(eta).timestamp() > time.time() + MAX_ETA_SECONDS:
        return "its time is too far ahead"
    return None
