"""Workers and servers as processes: commands, and the fixtures that start them, as functions."""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import NoReturn, Protocol

import pytest

from tests.support.processes import LoggedProcess

OURS = ("morango_celery.worker", "-A", "worker")
CELERYS = ("celery", "-A", "worker", "worker")
"""Commands that start a worker."""


class StartWorker(Protocol):
    def __call__(
        self,
        concurrency: int = 2,
        *,
        queue: str = "celery",
        command: Sequence[str] = OURS,
        **environment: str,
    ) -> LoggedProcess: ...


class StartServer(Protocol):
    def __call__(self, **environment: str) -> str: ...


def unavailable(reason: str) -> NoReturn:
    """Skip the test on a machine without the servers; fail it in CI."""
    if os.environ.get("CI"):
        pytest.fail(reason, pytrace=False)
    pytest.skip(reason)
