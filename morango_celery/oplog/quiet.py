"""Whether this thread is applying changes of others, which are nobody's to record."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from threading import local

_thread = local()


def is_applying() -> bool:
    return bool(getattr(_thread, "applying", False))


@contextmanager
def applying() -> Iterator[None]:
    """Signals that Django sends in the block tell of changes that come from a log."""
    before, _thread.applying = is_applying(), True
    try:
        yield
    finally:
        _thread.applying = before
