"""Syncs of two Morango instances, over HTTP, whose receivers cause more deletions."""

from __future__ import annotations

import json
import secrets
from collections.abc import Callable
from pathlib import Path

import pytest
from morango.models import Certificate, DeletedModels, Store

from morango_celery.models import Run
from tests.side_effects.device import ACCOUNT, SCOPE, define_scope
from tests.side_effects.models import Seat
from tests.support.processes import LoggedProcess
from tests.support.workers import StartServer, StartWorker
from worker.school.models import Account

SETTINGS = "tests.side_effects.settings"
ENROLLED = ["maths  ada", "maths red ada"]

Device = Callable[..., list[str]]


@pytest.fixture
def device(transactional_db: None, tmp_path: Path) -> Device:
    """Yield a function that has another instance perform actions, and sync with the server at a URL.

    It returns the names of the other instance's seats in the end.
    """
    define_scope()
    place = Certificate.generate_root_certificate(SCOPE)
    account = Account(username=ACCOUNT, is_superuser=True)
    password = secrets.token_urlsafe(16)
    account.set_password(password)
    account.save()

    def carry_out(url: str, *commands: str) -> list[str]:
        process = LoggedProcess(
            ["tests.side_effects.device", url, place.id, *commands],
            tmp_path / "device.log",
            {
                "DATABASE_URL": f"sqlite:///{tmp_path / 'device.sqlite3'}",
                "DJANGO_SETTINGS_MODULE": SETTINGS,
                "DEVICE_PASSWORD": password,
                "REDIS_URL": "",
                "NO_PROXY": "127.0.0.1",
            },
        )
        assert process.wait_until_ended(150) == 0, process.log()  # Morango's client sleeps most of it
        names: list[str] = json.loads(process.log().splitlines()[-1])
        return names

    return carry_out


def assert_both_have_what_came_back(device: Device, url: str) -> None:
    # When a person takes both seats, leaves them, and takes them again, and each time that is synced
    has = device(url, "enrol", "push", "leave", "push", "enrol", "push", "pull")

    # Then both instances have both seats, and neither says that it has deleted one
    assert has == ENROLLED
    assert sorted(Seat.objects.values_list("name", flat=True)) == ENROLLED
    assert list(Run.objects.order_by("pk").values_list("saved", "deleted")) == [(2, 0), (0, 2), (2, 0)]
    assert not DeletedModels.objects.exists()
    assert not Store.objects.filter(deleted=True).exists()
    assert not Store.objects.filter(dirty_bit=True).exists()


@pytest.mark.slow
def test_row_that_a_receiver_deleted_with_a_synced_deletion_comes_back(
    device: Device, live_http_server: StartServer
) -> None:
    url = live_http_server(DJANGO_SETTINGS_MODULE=SETTINGS, IN_PROCESS="1")
    assert_both_have_what_came_back(device, url)
    assert all(Run.objects.values_list("in_process", flat=True))


def test_deleted_row_comes_back_where_workers_deserialize(
    device: Device, live_http_server: StartServer, celery_worker_process: StartWorker
) -> None:
    celery_worker_process(concurrency=1, DJANGO_SETTINGS_MODULE=SETTINGS)
    url = live_http_server(DJANGO_SETTINGS_MODULE=SETTINGS)
    assert_both_have_what_came_back(device, url)
    assert not any(Run.objects.values_list("in_process", flat=True))
