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


class Bell:
    """Wakes one thread: rung by the thread that watches files, and by signals.

    A pipe, because a signal's handler may ring it at any moment, also while it is being waited for.
    """

    def __init__(self) -> None:
        self._reads, self._writes = os.pipe()
        os.set_blocking(self._reads, False)
        os.set_blocking(self._writes, False)
        self.stop_requested = False

    def ring(self) -> None:
        with suppress(BlockingIOError):  # it is full of rings
            os.write(self._writes, b".")

    def request_stop(self, signum: int, frame: FrameType | None) -> None:
        self.stop_requested = True
        self.ring()

    def wait(self, timeout_seconds: float) -> None:
        """Until it is rung; at once if it was since it was last waited for."""
        select.select([self._reads], [], [], timeout_seconds)
        with suppress(BlockingIOError):
            os.read(self._reads, 65536)

    def close(self) -> None:
        os.close(self._reads)
        os.close(self._writes)


@contextmanager
def stopping_bell() -> Iterator[Bell]:
    """A bell that SIGTERM and Ctrl-C ring instead of ending the process; only the main thread hears them."""
    bell = Bell()
    heard = STOPPING if threading.current_thread() is threading.main_thread() else ()
    before = {number: signal.signal(number, bell.request_stop) for number in heard}
    try:
        yield bell
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
        bell.close()
