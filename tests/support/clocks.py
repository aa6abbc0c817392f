"""Clocks that are wrong: this process's own, as others' machines may have them."""

from __future__ import annotations

import contextlib
import datetime
import time
from collections.abc import Iterator

import pytest
from django.utils import timezone

from tests.support.processes import ROOT


@contextlib.contextmanager
def clock_ahead(monkeypatch: pytest.MonkeyPatch, seconds: float) -> Iterator[None]:
    """Let Django and Python say that it is later than it is.

    :param seconds: negative for a clock that is behind
    """
    right_time, right_now = time.time, timezone.now
    with monkeypatch.context() as patch:
        patch.setattr(time, "time", lambda: right_time() + seconds)
        patch.setattr(timezone, "now", lambda: right_now() + datetime.timedelta(seconds=seconds))
        yield


def wrong_clock(ahead_seconds: float) -> dict[str, str]:
    """Return environment variables for a process on a machine with another clock.

    :param ahead_seconds: negative for one that is behind
    """
    folder = str(ROOT / "tests" / "wrong_clock")
    return {"PYTHONPATH": folder, "CLOCK_AHEAD_SECONDS": str(ahead_seconds)}
