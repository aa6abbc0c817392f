"""Connections to RabbitMQ that wait for it in bounded time, and notice that it takes no messages.

A RabbitMQ that is short of memory or disk space stops reading from every connection that publishes, and says
so once. It confirms nothing and answers nothing on that connection, and takes up the rest later. The client
that Celery uses waits for all of this without limit. Its own time-outs don't cover answers.
"""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any

from kombu.exceptions import OperationalError
from kombu.transport import pyamqp

from morango_celery.celery_compat import RecoverableConnectionError, frame_handler, use_connections
from morango_celery.messaging.tolerant_frames import tolerant_frame_handler

ANSWER_SECONDS = 5.0
"""Time for an answer or a confirmation, unless ``broker_transport_options`` have a ``read_timeout`` or
``socket_timeout``."""

PARKED_SECONDS = 60.0
"""Time after which a blocked connection, whose end may have gone unnoticed, is given up for a new one."""

IS_BLOCKED = "RabbitMQ takes no messages at the moment: it is short of memory or disk space"


class BlockedError(OperationalError):
    """RabbitMQ takes no messages at the moment.

    kombu doesn't count it among the errors that are worth a new connection: RabbitMQ would block that one
    too.
    """


class _AnswersInTime:
    """A part of connections and channels: a missing answer closes the connection, now out of step."""

    connection: Any

    def wait(
        self, method: Any, callback: Any = None, timeout: float | None = None, returns_tuple: bool = False
    ) -> Any:
        connection = self.connection
        if connection is None:  # the client raises its own error
            return super().wait(method, callback, timeout, returns_tuple)  # type: ignore[misc]  # of amqp
        connection.require_unblocked()
        limit = timeout or connection.answer_seconds
        try:
            with connection.awaiting():
                return super().wait(method, callback, limit, returns_tuple)  # type: ignore[misc]  # of amqp
        except TimeoutError:
            connection.collect()
            raise TimeoutError(f"RabbitMQ has not answered within {limit:g} seconds") from None


class BoundedChannel(_AnswersInTime, pyamqp.Channel):
    """A channel that publishes in bounded time, or not at all."""

    def basic_publish(self, *arguments: Any, **options: Any) -> Any:
        return self._publish(super().basic_publish, *arguments, **options)

    def basic_publish_confirm(self, *arguments: Any, **options: Any) -> Any:
        return self._publish(super().basic_publish_confirm, *arguments, **options)

    def _publish(self, publish: Callable[..., Any], *arguments: Any, **options: Any) -> Any:
        connection = self.connection
        if connection is None:
            return publish(*arguments, **options)
        _require_none_parked(connection.address)
        connection.require_unblocked()
        if options.get("timeout") is None:
            options["timeout"] = connection.answer_seconds
        try:
            with connection.awaiting():
                return publish(*arguments, **options)
        except RecoverableConnectionError:  # half a message may have been written
            connection.collect()
            raise

    def close(self, *arguments: Any, **options: Any) -> Any:
        if self.connection is None or not self.connection.is_blocked:
            super().close(*arguments, **options)


class BoundedConnection(_AnswersInTime, pyamqp.Connection):
    """A connection that waits for answers in bounded time, and reads what others can't.

    When RabbitMQ blocks it, it is parked: kept open and watched. Meanwhile, no other connection of this
    process publishes. RabbitMQ would keep each of them, closed or not, until it reads again.
    """

    Channel = BoundedChannel

    def __init__(self, *arguments: Any, **options: Any) -> None:
        if frame_handler is not None:
            options.setdefault("frame_handler", partial(tolerant_frame_handler, frame_handler))
        self.answer_seconds: float = (
            options.get("read_timeout") or options.get("socket_timeout") or ANSWER_SECONDS
        )
        self.is_blocked = False
        self._is_lifted = False
        self._blocked_at = 0.0
        self._waiting = 0
        self._projects_own = options.get("on_blocked"), options.get("on_unblocked")
        options.update(on_blocked=self._note_blocked, on_unblocked=self._note_unblocked)
        super().__init__(*arguments, **options)

    @property
    def address(self) -> tuple[int, str, str]:
        """The server and virtual host; and this process, since a forked one may not read from it."""
        return os.getpid(), str(self.host), str(self.virtual_host)

    @contextmanager
    def awaiting(self) -> Iterator[None]:
        """Have `BlockedError` raised inside as soon as RabbitMQ says that it blocks this connection."""
        self._waiting += 1
        try:
            yield
        finally:
            self._waiting -= 1

    def require_unblocked(self) -> None:
        """Look whether RabbitMQ blocks this connection, or has blocked it.

        :raises BlockedError: it does
        :raises RecoverableConnectionError: it did. A new connection is needed, since confirmations of earlier
            messages are still to come on this one
        Cost: nothing, unless the connection was blocked.
        """
        if self.is_blocked:
            if self.is_still_blocked():
                raise BlockedError(IS_BLOCKED)
            raise RecoverableConnectionError("RabbitMQ had blocked this connection")

    def is_still_blocked(self) -> bool:
        """Return True if RabbitMQ hasn't lifted the block; otherwise, the connection is closed."""
        try:
            while self.connected and not self._is_lifted:
                self.drain_events(timeout=0)
        except TimeoutError:  # nothing to read
            if time.monotonic() < self._blocked_at + PARKED_SECONDS:
                return True
        except self.connection_errors:
            pass
        self.is_blocked = False
        self.collect()
        return False

    def drain_events(self, timeout: float | None = None) -> None:
        """Read until something has happened, for no longer than `timeout` seconds, heartbeats or not."""
        deadline = None if timeout is None else time.monotonic() + timeout
        while not self.blocking_read(timeout):
            if deadline is not None:
                timeout = max(deadline - time.monotonic(), 0.0)

    def close(self, *arguments: Any, **options: Any) -> Any:
        if not self.is_blocked:
            super().close(*arguments, **options)

    def _note_blocked(self, reason: str) -> None:
        self.is_blocked = True
        self._blocked_at = time.monotonic()
        _parked.setdefault(self.address, self)
        if own := self._projects_own[0]:
            own(reason)
        if self._waiting:
            raise BlockedError(IS_BLOCKED)

    def _note_unblocked(self) -> None:
        self._is_lifted = True
        if own := self._projects_own[1]:
            own()


_parked: dict[tuple[int, str, str], BoundedConnection] = {}
_looking = threading.Lock()


def _require_none_parked(address: tuple[int, str, str]) -> None:
    """Look whether RabbitMQ blocks a connection of this process to the address.

    :raises BlockedError: it does
    """
    if address in _parked:
        with _looking:  # two threads can't read from one connection
            parked = _parked.get(address)
            if parked is not None and parked.is_still_blocked():
                raise BlockedError(IS_BLOCKED)
            _parked.pop(address, None)


def bound_connections() -> None:
    """Have connections to RabbitMQ in this process, as kombu makes them from here on, be bounded ones."""
    use_connections(BoundedConnection)
