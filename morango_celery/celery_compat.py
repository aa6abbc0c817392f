"""Private and undocumented names of Celery's, kombu's, billiard's and amqp's, in one place.

`morango_celery.celery_names` lists them. Checked against the releases in `CHECKED`; `checks/versions.py`
compares these with the installed ones, and looks for each name. The module serves the sender's side and the
consumer's, and knows neither.
"""

from __future__ import annotations

import signal
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

from amqp.exceptions import RecoverableConnectionError
from celery.events.dispatcher import EventDispatcher
from kombu.transport import pyamqp
from kombu.transport.redis import Channel as RedisChannel
from kombu.transport.virtual import QoS as VirtualQoS

from morango_celery.celery_names import SENDING, found, is_whole

__all__ = ["RecoverableConnectionError"]

CHECKED: Mapping[str, str] = {"amqp": "5.4.2", "celery": "5.7.0", "kombu": "5.7.0", "billiard": "4.3.2"}
"""Releases that these names were checked against, by distribution."""

TERM_SIGNAL: int = found("billiard.common:TERM_SIGNAL", signal.SIGTERM)
"""Signal by which a pool ends a process."""
REMAPS_SIGTERM: bool = found("billiard.common:REMAP_SIGTERM", None) == "SIGQUIT"
"""True if SIGTERM ends a worker as SIGQUIT does."""
SOFT_LIMIT_SIGNAL: int | None = found("billiard.pool:SIG_SOFT_TIMEOUT", None)
"""Signal by which a pool tells a process that its soft time limit is over; None if there is none."""
soft_limit_handler: Any = found("billiard.pool:soft_timeout_sighandler", None)
"""Handler of that signal in processes of a pool."""
signals: Any = found("celery.platforms:signals", None)
"""Handlers of this process's signals, by name."""
process_is_ended: Callable[[], bool] = found("billiard.common:terminate_handler_fired", lambda: False)
"""Function that returns True if a pool has told this process to end."""


# Workers


def pool_pids(worker: Any) -> list[int]:
    """Return the ids of a worker's pool processes; none if it has no pool, or has one no longer."""
    pool = getattr(worker.pool, "_pool", None)
    return [process.pid for process in list(getattr(pool, "_pool", None) or ())]


def requests_of_worker(kind: str) -> list[Any]:
    """Return the requests that this worker process has at hand.

    :param kind: "reserved" for all of them, "active" for those whose task has begun
    """
    return list(found(f"celery.worker.state:{kind}_requests", ()))


def stop_warmly(status: int) -> None:
    """Have the worker stop at its next look, which its loop takes between two callbacks, never inside one."""
    from celery.worker import state

    state.should_stop = status


def is_celerys_handler(name: str) -> bool:
    """Return False if a project has a handler of its own for the signal."""
    return signals is not None and getattr(signals[name], "__module__", None) == "celery.apps.worker"


def cancel_requests(consumer: Any) -> None:
    """Requeue the messages of all tasks that have begun, and end the tasks."""
    if hasattr(consumer, "cancel_active_requests"):
        consumer.cancel_active_requests()


def celerys_strategy() -> Callable[..., Any]:
    """Return the function by which Celery makes the handler of a task's messages."""
    strategy: Callable[..., Any] | None = found("celery.worker.strategy:default", None)
    if strategy is None:
        raise ImportError("celery.worker.strategy:default is not there: no task can be taken in.")
    return strategy


def replace_task_handler(consumer: Any, replace: Callable[[Callable[[], Any]], Callable[[], Any]]) -> None:
    """Replace the function by which a consumer makes its handler of messages, unless that was done before.

    :param replace: called with the present function
    """
    if "create_task_handler" not in vars(consumer) and hasattr(consumer, "create_task_handler"):
        consumer.create_task_handler = replace(consumer.create_task_handler)


# Tasks


def is_workers_call(request: Any) -> bool:
    """Return True for the call of a task's body by the worker, and False for further calls of it.

    Celery's own flag tells them apart, and this sets it.
    """
    if request.called_directly or getattr(request, "_protected", False):
        return False
    request._protected = 1
    return True


# Events


class TransparentDispatcher(EventDispatcher):
    """Dispatcher of events that lets a subclass see and change how each event is published."""

    def extend_buffer(self, other: Any) -> None:
        """Take over all that another dispatcher hasn't published: Celery forgets the grouped events."""
        super().extend_buffer(other)
        for group, events in other._group_buffer.items():
            self._group_buffer[group].extend(events)

    def publish_one(self, event: Any, producer: Any, routing_key: str, **options: Any) -> bool:
        """Publish an event, or a group of them.

        :returns: False if the broker didn't take it: it is buffered again
        """
        buffered = len(self._outbound_buffer)
        super()._publish(event, producer, routing_key, **options)
        return len(self._outbound_buffer) <= buffered

    def buffer_event(self, event: Any, routing_key: str) -> None:
        """Keep an event, to be published with the next flush."""
        self._outbound_buffer.append((event, routing_key))

    def _publish(self, event: Any, producer: Any, routing_key: str, **options: Any) -> None:
        self.publish_one(event, producer, routing_key, **options)


# Redis


def reuse_clients() -> None:
    """Have channels of Redis in this process keep one client for each of their pools of connections.

    kombu makes one for each command, which costs as much as the command itself. A client can be shared: it
    has no state of its own.
    """
    channels: Any = RedisChannel
    create = getattr(channels, "_create_client", None)

    def client_of(channel: Any, asynchronous: bool = False) -> Any:
        if asynchronous:  # such a client keeps a connection of its own
            return create(channel, asynchronous=True)  # type: ignore[misc]  # it is there: see below
        kept = getattr(channel, "_kept_client", None)
        if kept is None or kept.connection_pool is not channel.pool:
            kept = channel._kept_client = create(channel)  # type: ignore[misc]  # the same
        return kept

    if create is not None and create.__module__ != __name__:
        channels._create_client = client_of


Read = Callable[..., object]


def replace_request_for_messages(channel: Any, replace: Callable[[Read], Read]) -> None:
    """Replace the command by which a channel of Redis asks its queues for a message.

    :param replace: called with the present command, unless the transport is another one
    """
    if hasattr(channel, "_brpop_start") and hasattr(channel, "priority_steps"):
        channel._brpop_start = replace(channel._brpop_start)


def usual_order(channel: Any) -> Sequence[int]:
    """Return the priorities in the order in which a channel of Redis reads their lists."""
    steps: Sequence[int] = channel.priority_steps
    return steps


@contextmanager
def reading_in_order(channel: Any, priorities: Sequence[int]) -> Iterator[None]:
    """Have a channel of Redis read its lists in another order inside. The usual one is for requeueing."""
    usual = channel.priority_steps
    channel.priority_steps = priorities
    channel.priority = int  # kombu's own looks it up among the steps, which are not sorted now
    try:
        yield
    finally:
        channel.priority_steps = usual
        del channel.priority


READER_OF_QUEUES = "BRPOP"
"""Name of the reader of queues. The other one, "LISTEN", reads messages to all workers."""


def readers(channel: Any) -> dict[str, Read]:
    """Return the readers of a channel of Redis, by name; none for a channel of another transport."""
    found = getattr(channel, "handlers", None)
    return found if isinstance(found, dict) and READER_OF_QUEUES in found else {}


def forget_auto_deleted(channel: Any) -> None:
    """Have a channel of Redis close without deleting queues."""
    getattr(channel, "auto_delete_queues", set()).clear()


def free_slot(qos: Any, tag: Any) -> None:
    """Let a channel take one more message, though it could not acknowledge this one."""
    if hasattr(VirtualQoS, "ack"):
        VirtualQoS.ack(qos, tag)  # type: ignore[no-untyped-call]  # kombu's


def is_polled(channel: Any) -> bool:
    """Return True for a channel of a transport that asks its queues for messages again and again."""
    return hasattr(channel, "_get_and_deliver") and hasattr(channel, "_reset_cycle")


def replace_polling(channel: Any, replace: Callable[[Read], Read]) -> None:
    """Replace the function by which a channel polls its queues for a message.

    :param replace: called with the present function
    """
    channel._get_and_deliver = replace(channel._get_and_deliver)
    channel._reset_cycle()  # the cycle keeps a reference to the function


def forget_unacknowledged(qos: Any, tag: Any) -> None:
    """Remove a message of Redis from those that wait to be acknowledged, wherever it is noted."""
    qos._remove_from_indices(tag).execute()


# Channels, and RabbitMQ


def replace_channel_creation(transport: Any, replace: Callable[[Callable[..., Any]], Any]) -> None:
    """Replace the function by which a transport opens a channel.

    :param replace: called with the present function
    """
    transport.create_channel = replace(transport.create_channel)


frame_handler: Callable[..., Callable[..., Any]] | None = found("amqp.method_framing:frame_handler", None)
"""Function that makes the reader of a connection's frames."""


def use_connections(connections: type[Any]) -> None:
    """Have transports to RabbitMQ in this process make connections of a class."""
    if is_whole(SENDING):
        pyamqp.Transport.Connection = connections


def open_channels(connection: Any) -> Iterable[Any]:
    """Return the channels that a connection has, without those that it opens later."""
    virtual = getattr(connection.transport, "channels", None)
    if virtual is not None:
        return list(virtual)
    own = connection.connection  # of amqp; it counts as its own first channel
    channels = getattr(own, "channels", None) or {}
    return [channel for channel in channels.values() if channel is not own]


def replace_consumers(channel: Any, replace: Callable[[Read], Read]) -> None:
    """Replace the functions that take in the messages of a channel of RabbitMQ, present and future ones.

    :param replace: called with each function
    """
    callbacks = getattr(channel, "callbacks", None)
    if callbacks is None:
        return
    callbacks.update({tag: replace(consume) for tag, consume in callbacks.items()})
    subscribe = channel.basic_consume

    def subscribe_with(*arguments: Any, callback: Any = None, **options: Any) -> Any:
        return subscribe(*arguments, callback=replace(callback) if callback else callback, **options)

    channel.basic_consume = subscribe_with
