"""Whether this thread is applying changes of others, which are nobody's to record."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from threading import local

_thread = local()


def is_recording_suppressed() -> bool:
    return bool(getattr(_thread, "suppressed", False))


@contextmanager
def suppress_recording() -> Iterator[None]:
    """Signals that Django sends in the block tell of changes that come from a log."""
    before, _thread.suppressed = is_recording_suppressed(), True
    try:
        yield
    finally:
        _thread.suppressed = before
