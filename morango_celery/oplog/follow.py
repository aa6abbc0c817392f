"""Waiting for a log to grow, until somebody wants it to stop."""

from __future__ import annotations

import os
import select
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING

from morango_celery.errors import UsageError

if TYPE_CHECKING:
    from watchdog.observers.api import BaseObserver

LOOK_SECONDS = 1.0
"""At the latest after this long a file is looked at, also where the system tells of no changes: on network
file systems, say, or when the folder itself was replaced."""

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


class Watch:
    """Rings a bell when something happens in a folder, as far as the system tells."""

    def __init__(self, folder: Path, bell: Bell) -> None:
        """:raises UsageError: watchdog is not installed"""
        try:
            import watchdog.observers as observers
        except ImportError:
            raise UsageError(
                "To follow a file takes watchdog: install morango-celery[oplog], or leave --follow out."
            ) from None
        self._observers = observers
        self._folder = folder
        self._bell = bell
        self._observer: BaseObserver | None = None

    def ensure(self) -> None:
        """Begin to watch as soon as there is something to watch; call it now and then."""
        if (self._observer is not None and self._observer.is_alive()) or not self._folder.is_dir():
            return
        try:
            self._start(self._observers.Observer())
        except OSError:  # no inotify here, or none left
            from watchdog.observers.polling import PollingObserver

            self._start(PollingObserver(timeout=LOOK_SECONDS))

    def _start(self, observer: BaseObserver) -> None:
        from watchdog.events import FileSystemEvent, FileSystemEventHandler

        bell = self._bell

        class Ring(FileSystemEventHandler):
            def on_any_event(self, event: FileSystemEvent) -> None:
                if event.event_type not in ("opened", "closed_no_write"):  # which our own reading causes
                    bell.ring()

        observer.schedule(Ring(), str(self._folder))
        observer.start()
        self._observer = observer

    def stop(self) -> None:
        if self._observer is not None:
            self._observer.stop()
            self._observer.join()


@contextmanager
def watching(folder: Path, bell: Bell) -> Iterator[Watch]:
    watch = Watch(folder, bell)
    try:
        yield watch
    finally:
        watch.stop()
