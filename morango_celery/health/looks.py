"""Looks at servers that may be frozen: each has a thread of its own, and nobody waits for it for long."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from concurrent.futures import Future
from typing import Generic, TypeVar

from django.db import connections

T = TypeVar("T")

FRESH_SECONDS = 2.0
"""Time for which an answer is given again, so that no crowd of requests reaches the servers."""
ABANDONED_AFTER_SECONDS = 60.0
"""Time after which a look without an answer is given up: its connection may be dead, and the server alive."""


def begin(look: Callable[[], T]) -> Future[T]:
    """Begin a look in a thread that ends with the process, and closes its connections to databases."""
    future: Future[T] = Future()

    def work() -> None:
        try:
            try:
                answer = look()
            finally:
                connections.close_all()
        except BaseException as error:  # raised again by the thread that asks for the answer
            future.set_exception(error)
        else:
            future.set_result(answer)

    threading.Thread(target=work, name="health", daemon=True).start()
    return future


class SharedLook(Generic[T]):
    """A look whose answer is shared by all requests of a process that come at about the same time.

    So a server that doesn't answer holds one thread, however often it is asked about.
    """

    def __init__(self, look: Callable[[], T], patience_seconds: float) -> None:
        """:param patience_seconds: longest wait for the answer, from the beginning of the look"""
        self._look = look
        self._patience_seconds = patience_seconds
        self._lock = threading.Lock()
        self._future: Future[T] | None = None
        self._began = 0.0

    def begin(self) -> None:
        """Begin a look, unless one is under way or has just ended."""
        with self._lock:
            age = time.monotonic() - self._began
            limit = FRESH_SECONDS if self._future is None or self._future.done() else ABANDONED_AFTER_SECONDS
            if self._future is None or age > limit:
                self._future, self._began = begin(self._look), time.monotonic()

    def answer(self) -> T:
        """Return the answer of the last look that was begun.

        :raises TimeoutError: there is none yet
        :raises Exception: the look's own
        """
        with self._lock:
            future, began = self._future, self._began
        assert future is not None
        return future.result(max(began + self._patience_seconds - time.monotonic(), 0.0))
