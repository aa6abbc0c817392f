"""Fixtures of runs in this process, of an operator, and of a device that syncs."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from django.core.management import call_command
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


@pytest.fixture(scope="session")
def migrated_device(tmp_path_factory: pytest.TempPathFactory, django_db_blocker: Any) -> Path:
    """Return the file of a device's migrated database without rows, to be copied."""
    from worker.demo.attachment import device_attached

    path: Path = tmp_path_factory.mktemp("device") / "device.sqlite3"
    with django_db_blocker.unblock(), device_attached(f"sqlite:///{path}") as alias:
        call_command("migrate", database=alias, verbosity=0)
    return path


@pytest.fixture
def device(transactional_db: None, migrated_device: Path, tmp_path: Path) -> Iterator[StartDevice]:
    """Yield a function that starts a device, which pushes `RECORDS` sound records to the server at the URL.

    Its keyword arguments are further environment variables of the device.
    """
    from tests.integration.syncing import RECORDS, device_url
    from worker.demo import server

    access = server.found_school()
    shutil.copy(migrated_device, tmp_path)
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
