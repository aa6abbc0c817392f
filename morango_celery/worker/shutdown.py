"""Shutdown of a worker in bounded time, even if its batches, its processes or its broker hang.

Celery's soft shutdown is one sleep inside a signal's handler. It lasts for all of its time-out if anything
runs at its beginning. It reads no results and enforces no time limit. It also interrupts the event loop at
any point: if the loop was writing a job to a process, the other half is missing, and both wait for each
other. After it, Celery waits without limit for a process that waits inside the database, and for a Redis that
doesn't answer.

Here, a soft shutdown is Celery's warm one with a deadline. The worker takes no more messages, lets begun
batches end, and is gone right after the last. A thread of its own enforces the deadline.
"""

from __future__ import annotations

import _thread
import logging
import os
import select
import signal
import socket
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from typing import Any

from celery import bootsteps
from celery.signals import worker_shutting_down

from morango_celery.celery_compat import cancel_requests, is_celerys_handler, pool_pids, signals, stop_warmly
from morango_celery.worker.pools import Kind, kind
from morango_celery.worker.state import COLD_SIGNALS, all_have_begun

logger = logging.getLogger(__name__)

FAILURE = 1
"""Exit status of a worker that could not let all batches end."""

BEGINNING_SECONDS = 1.0
"""Longest wait for processes to report that they have begun their jobs. They report at once, unless a job
waits for a free process. Without this wait, Celery would requeue jobs that have just begun."""
LOOK_AGAIN_SECONDS = 0.02

DYING_SECONDS = 5.0
"""Time that a process has to give its batch up. One that waits inside the database can't."""
LEAVING_SECONDS = 15.0
"""Time that the worker has then to requeue messages. A broker that doesn't answer costs its socket
timeouts, one after another."""


class SoftShutdown(bootsteps.StartStopStep):
    """A bootstep that handles SIGTERM and SIGQUIT, and the second SIGINT.

    After ``worker_soft_shutdown_timeout`` seconds, batches that haven't ended are requeued.
    After five more, processes that still run one are killed. After fifteen more, the worker exits, even if it
    is held up. Each further signal takes the next of these steps at once. Under ``celery worker`` without
    ``REMAP_SIGTERM=SIGQUIT``, Celery itself handles SIGTERM: it waits for batches without limit.
    """

    requires = {"celery.worker.components:Pool"}

    def __init__(self, worker: Any, **options: Any) -> None:
        super().__init__(worker, **options)
        self._worker = worker
        self._pid = 0
        self._is_asked = False
        self._wakeup_receiver, self._wakeup_sender = socket.socketpair()
        self._wakeup_sender.setblocking(False)

    def start(self, worker: Any) -> None:
        """Take the signals over from Celery; leave a project's own handlers, and other pools, alone."""
        if kind(worker.pool_cls) is not Kind.PROCESSES:
            return
        self._pid = os.getpid()
        for name in COLD_SIGNALS:
            if is_celerys_handler(name):
                signals[name] = self._ask
        if is_celerys_handler("SIGINT"):
            signals["SIGINT"] = partial(self._interrupt, signals["SIGINT"])

    def _interrupt(self, celerys: Callable[..., object], number: int, frame: Any) -> None:
        celerys(number, frame)  # a warm shutdown; it also installs Celery's cold one, which is replaced here
        if os.getpid() == self._pid:
            signals["SIGINT"] = self._ask

    def _ask(self, number: int, frame: Any) -> None:
        """Handle a signal, without taking a lock: the interrupted code may hold any."""
        if os.getpid() != self._pid:  # a process of the pool that isn't set up yet
            return
        if self._is_asked:
            with suppress(BlockingIOError):
                self._wakeup_sender.send(b"\0")
            return
        self._is_asked = True
        _thread.start_new_thread(self._oversee, (number,))

    def _oversee(self, number: int) -> None:
        """Take each step in its time, in a thread of its own, so that one that hangs holds up no other."""
        _apart(partial(self._begin, signal.Signals(number).name))
        soft_seconds = self._worker.app.conf.worker_soft_shutdown_timeout or 0
        for seconds, step in (
            (soft_seconds, self._requeue),
            (DYING_SECONDS, self._kill),
            (LEAVING_SECONDS, self._leave),
        ):
            if select.select([self._wakeup_receiver], [], [], seconds)[0]:
                self._wakeup_receiver.recv(1)
            _apart(step)

    def _begin(self, name: str) -> None:
        logger.warning(
            "Stopping (%s): batches that run have %s seconds to end, others are left to the next worker.",
            name,
            self._worker.app.conf.worker_soft_shutdown_timeout or 0,
        )
        worker_shutting_down.send(sender=self._worker.hostname, sig=name, how="Warm", exitcode=os.EX_OK)
        deadline = time.monotonic() + BEGINNING_SECONDS
        while not all_have_begun() and time.monotonic() < deadline:
            time.sleep(LOOK_AGAIN_SECONDS)
        stop_warmly(os.EX_OK)
        if self._worker.use_eventloop:
            self._worker.hub.call_soon(_nothing)  # wakes the loop, which then looks at once

    def _requeue(self) -> None:
        stop_warmly(os.EX_OK)  # `_begin` may not have come as far as that
        logger.warning("Stopping: the time is up. What still runs goes back to the queue.")
        self._worker.exitcode = FAILURE
        while True:
            with suppress(RuntimeError):  # a request ended during the iteration over them
                cancel_requests(self._worker.consumer)
                return

    def _kill(self) -> None:
        for pid in pool_pids(self._worker):
            logger.warning("Stopping: process %s is still there, and is killed.", pid)
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)

    def _leave(self) -> None:
        logger.critical(
            "Stopping: the worker is held up, and leaves. What it could not requeue is in the ledger, and "
            "is sent again."
        )
        os._exit(FAILURE)


def _apart(step: Callable[[], None]) -> None:
    threading.Thread(target=step, daemon=True).start()


def _nothing() -> None:
    """Do nothing."""
