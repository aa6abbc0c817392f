"""Suppression of recording while this thread applies changes of another project's log."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from threading import local

_thread = local()


def is_recording_suppressed() -> bool:
    return bool(getattr(_thread, "suppressed", False))


@contextmanager
def suppress_recording() -> Iterator[None]:
    """Record no change that is made in this block: it comes from a log."""
    before, _thread.suppressed = is_recording_suppressed(), True
    try:
        yield
    finally:
        _thread.suppressed = before
