"""Waiting for a log to grow, until the process is asked to stop."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from typing_extensions import override

from morango_celery.errors import UsageError
from morango_celery.management.wakeup import Wakeup

if TYPE_CHECKING:
    from watchdog.observers.api import BaseObserver

LOOK_SECONDS = 1.0
"""Interval at which a file is looked at in any case. The system may tell of no changes: on network file
systems, for instance, or when the folder itself was replaced."""


class Watch:
    """Observer of a folder that wakes a waiting thread on each change of which the system tells."""

    def __init__(self, folder: Path, wakeup: Wakeup) -> None:
        """Watch nothing as yet; see `ensure`.

        :raises UsageError: watchdog is not installed
        """
        try:
            import watchdog.observers as observers
        except ImportError:
            raise UsageError(
                "To follow a file takes watchdog: install morango-celery[oplog], or leave --follow out."
            ) from None
        self._observers = observers
        self._folder = folder
        self._wakeup = wakeup
        self._observer: BaseObserver | None = None

    def ensure(self) -> None:
        """Begin to watch the folder once it exists. Call this now and then."""
        if (self._observer is not None and self._observer.is_alive()) or not self._folder.is_dir():
            return
        try:
            self._start(self._observers.Observer())
        except OSError:  # no inotify here, or none left
            from watchdog.observers.polling import PollingObserver

            self._start(PollingObserver(timeout=LOOK_SECONDS))

    def _start(self, observer: BaseObserver) -> None:
        from watchdog.events import FileSystemEvent, FileSystemEventHandler

        wakeup = self._wakeup

        class OnEvent(FileSystemEventHandler):
            @override
            def on_any_event(self, event: FileSystemEvent) -> None:
                if event.event_type not in ("opened", "closed_no_write"):  # our own reading causes these
                    wakeup.wake()

        observer.schedule(OnEvent(), str(self._folder))
        observer.start()
        self._observer = observer

    def stop(self) -> None:
        if self._observer is not None:
            self._observer.stop()
            self._observer.join()


@contextmanager
def watching(folder: Path, wakeup: Wakeup) -> Iterator[Watch]:
    watch = Watch(folder, wakeup)
    try:
        yield watch
    finally:
        watch.stop()
