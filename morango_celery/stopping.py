"""When a worker heeds a signal to stop: between two callbacks of its event loop, never in the middle of one.

Celery carries a soft or cold shutdown out in the signal's handler, on top of whatever the loop was at, which
goes on only after it. If that was writing a job to a process of the pool, or reading what one has to say, the
other half is missing: the process waits for it, Celery waits for the process, and the worker outlasts its
supervisor's patience. And a job that a process has, but that Celery hasn't heard of being begun, is neither
waited for in the soft shutdown nor ended after it: the worker stays for as long as it takes.
"""

from __future__ import annotations

import contextlib
import os
import socket
import time
from collections.abc import Callable
from functools import partial
from typing import Any

from celery import bootsteps
from celery.platforms import signals

Handler = Callable[[int, Any], object]

STOPPING = ("SIGTERM", "SIGQUIT")
"""What supervisors send. SIGINT stays as it is: at a terminal, the way out of a loop that is stuck."""

INSTALLER = "celery.apps.worker"
"""Whose handlers are wrapped. A project's own are left alone."""

SETTLING_SECONDS = 1.0
"""How long to wait at most for processes to say that they have begun what they were given. They do at once,
but for a job that waits for a free one."""
LOOK_AGAIN_SECONDS = 0.02


class StopsBetweenCallbacks(bootsteps.StartStopStep):
    """Has the event loop call Celery's handlers, as it calls what reads the broker's messages.

    Where no loop runs (other transports, a broker that is away), they are called at once, as ever. So are
    those that Celery sets up meanwhile: a second signal cuts the soft shutdown short.
    """

    requires = {"celery.worker.consumer.tasks:Tasks"}

    def __init__(self, parent: Any, **options: Any) -> None:
        super().__init__(parent, **options)
        self._looping_pid: int | None = None
        self._asked: dict[int, Handler] = {}
        self._settled_by = 0.0
        # The hub can be woken, too, but by what takes a lock: whoever was interrupted may hold it.
        self._ear, self._bell = socket.socketpair()
        self._ear.setblocking(False)
        self._bell.setblocking(False)

    def register_with_event_loop(self, parent: Any, hub: Any) -> None:
        """Celery calls this when a loop is about to start, once for each connection to the broker."""
        hub.add_reader(self._ear, self._hear, parent.controller.state, hub)
        for name in STOPPING:
            handler = signals[name]
            if getattr(handler, "__module__", None) == INSTALLER:
                signals[name] = partial(self._ask, handler)
        self._looping_pid = os.getpid()

    def stop(self, parent: Any) -> None:
        self._looping_pid = None
        self._heed()

    terminate = stop

    def _ask(self, handler: Handler, number: int, frame: Any) -> None:
        if os.getpid() != self._looping_pid:  # or it is a process of the pool that isn't set up yet
            handler(number, frame)
            return
        if not self._asked:
            self._settled_by = time.monotonic() + SETTLING_SECONDS
        self._asked[number] = handler
        self._ring()

    def _ring(self) -> None:
        with contextlib.suppress(BlockingIOError):  # then it has been rung often enough to be heard
            self._bell.send(b"\0")

    def _hear(self, state: Any, hub: Any) -> None:
        with contextlib.suppress(BlockingIOError):
            self._ear.recv(4096)
        is_settled = not state.reserved_requests - state.active_requests
        if is_settled or time.monotonic() > self._settled_by:
            self._heed()
        else:
            hub.call_later(LOOK_AGAIN_SECONDS, self._ring)

    def _heed(self) -> None:
        asked, self._asked = self._asked, {}
        for number, handler in asked.items():
            handler(number, None)
