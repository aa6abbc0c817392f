"""Channels of a worker's connection to its broker, and corrections of them for times of outage."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any
from weakref import WeakSet

from celery import bootsteps

from morango_celery.celery_compat import (
    forget_auto_deleted,
    free_slot,
    open_channels,
    readers,
    replace_channel_creation,
)

Errors = tuple[type[Exception], ...]


def errors_of_broker(consumer: Any) -> Errors:
    """Return the errors of a worker's connection to the broker.

    With Redis, kombu counts `KeyError` among them. It is left out: a malformed message raises it, too.
    """
    errors: Errors = consumer.connection_errors + consumer.channel_errors
    return tuple(error for error in errors if not issubclass(error, LookupError))


def each_channel(connection: Any, do: Callable[[Any], None]) -> None:
    """Call `do` once with each channel of a connection, including channels that are opened later on."""
    known: WeakSet[Any] = WeakSet()

    def do_once(channel: Any) -> Any:
        if channel not in known:
            known.add(channel)
            do(channel)
        return channel

    for channel in open_channels(connection):
        do_once(channel)
    replace_channel_creation(
        connection.transport, lambda create: lambda *arguments: do_once(create(*arguments))
    )


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


def _mend(errors: Errors, channel: Any) -> None:
    if not readers(channel):  # the transport is not Redis
        return
    qos = channel.qos
    channel.close = partial(_close, errors, channel, channel.close)
    qos.ack = partial(_ack_or_reject, errors, qos, qos.ack)
    qos.reject = partial(_ack_or_reject, errors, qos, qos.reject)


def _close(errors: Errors, channel: Any, close: Callable[[], None]) -> None:
    try:
        close()
    except errors:
        # The second call gets past the failure, but for queues that can't be deleted now: those of remote
        # control. This worker takes them again when it reconnects
        forget_auto_deleted(channel)
        close()


def _ack_or_reject(errors: Errors, qos: Any, call: Callable[..., None], tag: str, **options: Any) -> None:
    try:
        call(tag, **options)
    except errors:
        free_slot(qos, tag)  # Redis still has the message and delivers it again, which finds the batch done
        raise
