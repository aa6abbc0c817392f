"""An end in time, whatever the process waits for."""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def ends_after(seconds: float | None, text: str, status: int, *, descriptor: int = 2) -> Iterator[None]:
    """End the process if the block isn't left in time.

    A thread does it, at once: a signal's handler would wait until a database, or a name server, answers.

    :param seconds: None for no limit
    :param text: line to write before
    :param descriptor: number of the stream to write it to
    """
    if seconds is None:
        yield
        return

    def end() -> None:
        os.write(descriptor, f"{text}\n".encode())
        os._exit(status)

    timer = threading.Timer(seconds, end)
    timer.daemon = True
    timer.start()
    try:
        yield
    finally:
        timer.cancel()
