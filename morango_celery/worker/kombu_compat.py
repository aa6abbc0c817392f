"""Private names of Celery's, kombu's and billiard's, and replacements for their own code.

Checked against celery 5.7.0, kombu 5.7.0 and billiard 4.3.2. The only other modules with such names are
`raw_messages` and `priorities`, which read queues.
"""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable
from functools import partial
from typing import Any
from weakref import WeakSet

from billiard.common import REMAP_SIGTERM
from celery import bootsteps
from celery.events.dispatcher import EventDispatcher
from celery.platforms import signals
from celery.worker import state
from kombu.transport.redis import Channel as RedisChannel
from kombu.transport.virtual import QoS as VirtualQoS

COLD_SIGNALS = ("SIGQUIT", "SIGTERM") if REMAP_SIGTERM == "SIGQUIT" else ("SIGQUIT",)
"""Signals at which Celery ends a worker in bounded time. Without the remapping, SIGTERM is not among them: it
lets all batches end first."""

CELERYS_DISPATCHER = "celery.events.dispatcher:EventDispatcher"
HEARTBEAT = "worker.heartbeat"
SILENCE_SECONDS = 30.0
"""Time for which a worker sends no events after one that the broker didn't take."""
GATHERING_SECONDS = 0.2
"""Longest time for which a worker gathers events of tasks, to send them in one message."""


def is_celerys_handler(name: str) -> bool:
    """Return False if a project has a handler of its own for the signal."""
    return getattr(signals[name], "__module__", None) == "celery.apps.worker"


def stop_warmly() -> None:
    """Have the worker stop at its next look, which its loop takes between two callbacks, never inside one."""
    state.should_stop = os.EX_OK


def all_have_begun() -> bool:
    """Return True if Celery has heard from the pool that each job it was given has begun."""
    return len(state.reserved_requests) <= len(state.active_requests)


def pool_pids(worker: Any) -> list[int]:
    """Return the ids of a worker's pool processes; none if it has no pool, or has one no longer."""
    pool = getattr(worker.pool, "_pool", None)
    return [process.pid for process in list(getattr(pool, "_pool", None) or ())]


class BoundedDispatcher(EventDispatcher):
    """A dispatcher of events that bounds the time which a worker spends on them.

    Celery retries a heartbeat for as long as the broker doesn't take it, inside the event loop. The loop
    stands still meanwhile: no result is read, no time limit enforced, and no lost connection noticed. Here,
    every attempt has an end, and after a failure there is none for `SILENCE_SECONDS`.

    Celery publishes tasks' events at each turn of the event loop, for small tasks one at a time. Here, a
    worker gathers these events for `GATHERING_SECONDS`.
    """

    _silent_until = 0.0
    _is_gathering = False

    def gather_in(self, hub: Any) -> None:
        """Publish events of tasks every `GATHERING_SECONDS` from here on.

        :param hub: the worker's event loop, which this thread runs
        """
        at_once, loop = self.on_send_buffered, threading.get_ident()

        def publish() -> None:
            self._is_gathering = False
            self.flush()

        def publish_later() -> None:
            if threading.get_ident() != loop:  # timers are the loop's own
                at_once()
            elif not self._is_gathering:
                self._is_gathering = True
                hub.call_later(GATHERING_SECONDS, publish)

        self.on_send_buffered = publish_later

    def publish_at_once(self) -> None:
        """Publish the gathered events, and from here on each by itself: the event loop is at its end."""
        self.on_send_buffered = self.flush
        self.flush()

    def extend_buffer(self, other: Any) -> None:
        """Take over all that another dispatcher hasn't published."""
        super().extend_buffer(other)
        for group, events in other._group_buffer.items():
            self._group_buffer[group].extend(events)

    def _publish(self, event: Any, producer: Any, routing_key: str, **options: Any) -> None:
        if time.monotonic() < self._silent_until:
            if routing_key != HEARTBEAT:  # there will be another
                self._outbound_buffer.append((event, routing_key))
            return
        buffered = len(self._outbound_buffer)
        if not options.get("retry_policy"):
            options["retry"] = False  # without a policy, kombu retries for ever
        super()._publish(event, producer, routing_key, **options)
        if len(self._outbound_buffer) > buffered:
            self._silent_until = time.monotonic() + SILENCE_SECONDS


def bound_events(app: Any) -> None:
    """Have the app use `BoundedDispatcher`, unless its project has chosen another one."""
    if app.events.dispatcher_cls == CELERYS_DISPATCHER:
        app.events.dispatcher_cls = BoundedDispatcher


class GathersEvents(bootsteps.StartStopStep):
    """A bootstep with which a worker that has an event loop gathers its tasks' events until it stops."""

    requires = {"celery.worker.consumer.events:Events"}

    def start(self, parent: Any) -> None:
        dispatcher = parent.event_dispatcher
        if parent.hub and isinstance(dispatcher, BoundedDispatcher):
            dispatcher.gather_in(parent.hub)

    def stop(self, parent: Any) -> None:
        is_last = parent.blueprint.state == bootsteps.CLOSE  # else it is connected again
        if is_last and isinstance(parent.event_dispatcher, BoundedDispatcher):
            parent.event_dispatcher.publish_at_once()


class SurvivesOutages(bootsteps.StartStopStep):
    """A bootstep that corrects kombu's channels for Redis, for the times when Redis doesn't answer.

    - Closing a channel stops at the first command without an answer. Celery closes a lost connection twice in
      a row. The second time, kombu goes on with a connection that is None: ``AttributeError: 'NoneType'
      object has no attribute 'hostname'``, which ends the worker.
    - A message that can't be acknowledged counts as being worked at for as long as the connection lasts. A
      connection outlasts the freezing of Redis, so the worker takes fewer messages from then on, or none.
    """

    requires = {"celery.worker.consumer.control:Control"}

    def start(self, parent: Any) -> None:
        errors = parent.connection_errors + parent.channel_errors
        each_channel(parent.connection, partial(_mend, errors))


Errors = tuple[type[Exception], ...]


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


def errors_of_broker(consumer: Any) -> Errors:
    """Return the errors of a worker's connection to the broker.

    With Redis, kombu counts `KeyError` among them. It is left out: a malformed message raises it, too.
    """
    errors: Errors = consumer.connection_errors + consumer.channel_errors
    return tuple(error for error in errors if not issubclass(error, LookupError))


def each_channel(connection: Any, do: Callable[[Any], None]) -> None:
    """Call `do` once with each channel of a connection, including channels that are opened later on."""
    transport = connection.transport
    create = transport.create_channel
    known: WeakSet[Any] = WeakSet()

    def do_once(channel: Any) -> Any:
        if channel not in known:
            known.add(channel)
            do(channel)
        return channel

    for channel in getattr(transport, "channels", None) or ():  # of virtual transports
        do_once(channel)
    transport.create_channel = lambda *arguments: do_once(create(*arguments))


def is_at_hand(message: Any) -> bool:
    """Return True if a message is settled, or its task is in the hands of the worker."""
    task_id = message.headers.get("id")
    return message.acknowledged or any(request.id == task_id for request in state.reserved_requests)


def _mend(errors: Errors, channel: Any) -> None:
    if "BRPOP" not in getattr(channel, "handlers", {}):  # the transport is not Redis
        return
    qos = channel.qos
    channel.close = partial(_close, errors, channel, channel.close)
    qos.ack = partial(_settle, errors, qos, qos.ack)
    qos.reject = partial(_settle, errors, qos, qos.reject)


def _close(errors: Errors, channel: Any, close: Callable[[], None]) -> None:
    try:
        close()
    except errors:
        # The second call gets past the failure, but for queues that can't be deleted now: those of remote
        # control. This worker takes them again when it reconnects
        channel.auto_delete_queues.clear()
        close()


def _settle(errors: Errors, qos: Any, settle: Callable[..., None], tag: str, **options: Any) -> None:
    free: Callable[..., None] = VirtualQoS.ack
    try:
        settle(tag, **options)
    except errors:
        free(qos, tag)  # Redis still has the message and delivers it again, which finds the batch done
        raise
