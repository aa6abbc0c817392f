"""Fixtures of runs in this process, of an operator, and of a device that syncs."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from django.test import Client

from tests.support.processes import LoggedProcess

if TYPE_CHECKING:  # models can't be imported yet
    from tests.integration.syncing import StartDevice


@pytest.fixture
def serializable_in_a_transaction(settings: Any) -> None:
    settings.MORANGO_TEST_POSTGRESQL = True  # Morango sets no isolation level then


@pytest.fixture
def batch_size(settings: Any) -> Callable[[int], None]:
    def change(size: int) -> None:
        settings.MORANGO_CELERY = {**settings.MORANGO_CELERY, "BATCH_SIZE_RECORDS": size}

    return change


@pytest.fixture
def operator(db: None) -> Client:
    """Log a user in who may do everything with runs and errors in the admin."""
    from tests.support.operators import OPERATE, logged_in

    return logged_in("operator", OPERATE)


@pytest.fixture
def device(transactional_db: None, tmp_path: Path) -> Iterator[StartDevice]:
    """Yield a function that starts a device, which pushes `RECORDS` sound records to the server at the URL.

    Its keyword arguments are further environment variables of the device.
    """
    from tests.integration.syncing import RECORDS, device_url
    from worker.demo import server

    access = server.found_school()
    started: list[LoggedProcess] = []

    def start(url: str, **environment: str) -> LoggedProcess:
        arguments = ["--server", f"{url}/", "--school", access.school_id, "--account", access.account]
        process = LoggedProcess(
            ["worker.demo.sender", *arguments, "--records", str(RECORDS), "--plain"],
            tmp_path / "device.log",
            {
                "DATABASE_URL": device_url(tmp_path),
                "REDIS_URL": "",
                "DEMO_PASSWORD": access.password,
                "NO_PROXY": "127.0.0.1",
                **environment,
            },
        )
        started.append(process)
        return process

    yield start
    for process in started:
        process.stop()
