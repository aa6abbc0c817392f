"""Ctrl-C and SIGTERM, noted when they come and acted upon where nothing is half started."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


class StopRequestedError(Exception):
    """The user, or the system, wants the demo to stop."""

    def __init__(self, number: int) -> None:
        super().__init__(signal.Signals(number).name)
        self.exit_status = 128 + number


class Interrupts:
    """The first signal that has come, if any.

    An exception out of a signal's handler could strike between the start of a process and the note that
    it has to be ended. So whoever waits calls `check`, several times a second.
    """

    def __init__(self) -> None:
        self._received: int | None = None

    @contextmanager
    def noted(self) -> Iterator[None]:
        """Note signals, rather than end at once, until the block is left."""
        before = {number: signal.signal(number, self._note) for number in _SIGNALS}
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)

    def check(self) -> None:
        """
        :raises StopRequestedError: a signal has come
        """
        if self._received is not None:
            raise StopRequestedError(self._received)

    def _note(self, number: int, frame: FrameType | None) -> None:
        if self._received is None:
            self._received = number
