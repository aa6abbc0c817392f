"""Events of workers, sent in bounded time and several in one message."""

from __future__ import annotations

import threading
import time
from typing import Any

from celery import bootsteps
from kombu.exceptions import KombuError
from typing_extensions import override

from morango_celery.celery_compat import TransparentDispatcher
from morango_celery.celery_names import EVENTS, is_whole
from morango_celery.messaging.transports import RABBITMQ

CELERYS_DISPATCHER = "celery.events.dispatcher:EventDispatcher"
HEARTBEAT = "worker.heartbeat"
SILENCE_SECONDS = 30.0
"""Time for which a worker sends no events after one that the broker didn't take."""
GATHERING_SECONDS = 0.2
"""Longest time for which a worker gathers events of tasks, to send them in one message."""


class BoundedDispatcher(TransparentDispatcher):
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

    @override
    def publish_one(self, event: Any, producer: Any, routing_key: str, **options: Any) -> bool:
        if time.monotonic() < self._silent_until:
            if routing_key != HEARTBEAT:  # there will be another
                self.buffer_event(event, routing_key)
            return False
        if not options.get("retry_policy"):
            options["retry"] = False  # without a policy, kombu retries for ever
        if _reconnects(producer):
            is_taken = super().publish_one(event, producer, routing_key, **options)
        else:
            self.buffer_event(event, routing_key)
            is_taken = False
        if not is_taken:
            self._silent_until = time.monotonic() + SILENCE_SECONDS
        return is_taken


def _reconnects(producer: Any) -> bool:
    """Connect to RabbitMQ again if that connection was lost; Redis' clients do so by themselves.

    :returns: False if that failed
    Cost: nothing while the connection holds.
    """
    connection = producer.connection if producer is not None else None
    if connection is None or connection.transport.driver_type != RABBITMQ or connection.connected:
        return True
    try:
        connection.collect()
        connection.ensure_connection(max_retries=1, interval_start=0, interval_step=0)
        producer.revive(connection)
    except (KombuError, OSError):
        return False
    return True


def bound_events(app: Any) -> None:
    """Have the app use `BoundedDispatcher`, unless its project has chosen another one."""
    if is_whole(EVENTS) and app.events.dispatcher_cls == CELERYS_DISPATCHER:
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
