"""Ctrl-C and SIGTERM, noted at once, and obeyed where nothing is half started."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


class StopRequestedError(Exception):
    """The user or the system stops the demo."""

    def __init__(self, number: int) -> None:
        super().__init__(signal.Signals(number).name)
        self.exit_status = 128 + number


class Interrupts:
    """The first signal that has come, if any.

    An exception out of a signal's handler could strike between the start of a process and the note that it
    has to be ended. So each waiting loop calls `check`, several times a second.
    """

    def __init__(self) -> None:
        self._received: int | None = None

    @contextmanager
    def noted(self) -> Iterator[None]:
        """Note signals until the block is left, instead of ending at once."""
        before = {number: signal.signal(number, self._note) for number in _SIGNALS}
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)

    def check(self) -> None:
        """Check that no signal has come.

        :raises StopRequestedError: a signal has come
        """
        if self._received is not None:
            raise StopRequestedError(self._received)

    def _note(self, number: int, frame: FrameType | None) -> None:
        if self._received is None:
            self._received = number
