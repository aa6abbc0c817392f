"""Waiting that ends when something happens, or when somebody wants the process to stop."""

from __future__ import annotations

import os
import select
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from types import FrameType

STOPPING = (signal.SIGTERM, signal.SIGINT)


class Wakeup:
    """Wakes one thread: called by the thread that watches files, and by signals.

    A pipe, because a signal's handler may wake it at any moment, also while it is waiting.
    """

    def __init__(self) -> None:
        self._reads, self._writes = os.pipe()
        os.set_blocking(self._reads, False)
        os.set_blocking(self._writes, False)
        self.stop_requested = False

    def wake(self) -> None:
        with suppress(BlockingIOError):  # the pipe is full of wake-ups
            os.write(self._writes, b".")

    def request_stop(self, signum: int, frame: FrameType | None) -> None:
        self.stop_requested = True
        self.wake()

    def wait(self, timeout_seconds: float) -> None:
        """Wait until `wake` is called; not at all if it was since the last wait."""
        select.select([self._reads], [], [], timeout_seconds)
        with suppress(BlockingIOError):
            os.read(self._reads, 65536)

    def close(self) -> None:
        os.close(self._reads)
        os.close(self._writes)


@contextmanager
def wakeup_on_stop_signals() -> Iterator[Wakeup]:
    """Yield a `Wakeup` that SIGTERM and Ctrl-C trigger instead of ending the process.

    Only the main thread receives signals.
    """
    wakeup = Wakeup()
    heard = STOPPING if threading.current_thread() is threading.main_thread() else ()
    before = {number: signal.signal(number, wakeup.request_stop) for number in heard}
    try:
        yield wakeup
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
        wakeup.close()
