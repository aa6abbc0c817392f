"""Private names of Celery's, kombu's and billiard's, in one place.

Checked against the releases in `CHECKED`; `checks/versions.py` compares these with the installed ones. The
module serves the sender's side and the consumer's, and knows neither.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from celery.events.dispatcher import EventDispatcher
from kombu.transport.redis import Channel as RedisChannel

CHECKED: Mapping[str, str] = {"celery": "5.7.0", "kombu": "5.7.0", "billiard": "4.3.2"}
"""Releases that these names were checked against, by distribution."""


def pool_pids(worker: Any) -> list[int]:
    """Return the ids of a worker's pool processes; none if it has no pool, or has one no longer."""
    pool = getattr(worker.pool, "_pool", None)
    return [process.pid for process in list(getattr(pool, "_pool", None) or ())]


def is_workers_call(request: Any) -> bool:
    """Return True for the call of a task's body by the worker, and False for further calls of it.

    Celery's own flag tells them apart, and this sets it.
    """
    if request.called_directly or request._protected:
        return False
    request._protected = 1
    return True


class TransparentDispatcher(EventDispatcher):
    """Dispatcher of events that lets a subclass see and change how each event is published."""

    def extend_buffer(self, other: Any) -> None:
        """Take over all that another dispatcher hasn't published: Celery forgets the grouped events."""
        super().extend_buffer(other)
        for group, events in other._group_buffer.items():
            self._group_buffer[group].extend(events)

    def publish_one(self, event: Any, producer: Any, routing_key: str, **options: Any) -> bool:
        """Publish an event, or a group of them.

        :returns: False if the broker didn't take it: it was put back
        """
        buffered = len(self._outbound_buffer)
        super()._publish(event, producer, routing_key, **options)
        return len(self._outbound_buffer) <= buffered

    def put_back(self, event: Any, routing_key: str) -> None:
        """Keep an event, to be published with the next flush."""
        self._outbound_buffer.append((event, routing_key))

    def _publish(self, event: Any, producer: Any, routing_key: str, **options: Any) -> None:
        self.publish_one(event, producer, routing_key, **options)


def reuse_clients() -> None:
    """Have channels of Redis in this process keep one client for each of their pools of connections.

    kombu makes one for each command, which costs as much as the command itself. A client can be shared: it
    has no state of its own.
    """
    channels: Any = RedisChannel
    create = channels._create_client

    def client_of(channel: Any, asynchronous: bool = False) -> Any:
        if asynchronous:  # such a client keeps a connection of its own
            return create(channel, asynchronous=True)
        kept = getattr(channel, "_kept_client", None)
        if kept is None or kept.connection_pool is not channel.pool:
            kept = channel._kept_client = create(channel)
        return kept

    if create.__module__ != __name__:
        channels._create_client = client_of


Read = Callable[..., object]


def replace_request_for_messages(channel: Any, replace: Callable[[Read], Read]) -> None:
    """Replace the command by which a channel of Redis asks its queues for a message.

    :param replace: called with the present command, unless the transport is another one
    """
    if hasattr(channel, "_brpop_start"):
        channel._brpop_start = replace(channel._brpop_start)


def replace_polling(channel: Any, replace: Callable[[Read], Read]) -> None:
    """Replace the function by which a channel polls its queues for a message.

    :param replace: called with the present function, unless the transport isn't polled
    """
    if hasattr(channel, "_get_and_deliver"):
        channel._get_and_deliver = replace(channel._get_and_deliver)
        channel._reset_cycle()  # the cycle keeps a reference to the function


def forget_unacknowledged(qos: Any, tag: Any) -> None:
    """Remove a message of Redis from those that wait to be acknowledged, wherever it is noted."""
    qos._remove_from_indices(tag).execute()
