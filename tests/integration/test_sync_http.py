"""Morango's own syncs over HTTP, with our operation in the server's deserializing stage.

A second instance, a process of its own on SQLite, pushes to a real server with real workers.
"""

from __future__ import annotations

from pathlib import Path

import pytest
from django.db import connections
from morango.constants import transfer_stages, transfer_statuses
from redis import Redis

from morango_celery.messaging.priorities import STARTING
from morango_celery.models import Run
from tests.integration.syncing import (
    RECORDS,
    StartDevice,
    assert_completed_and_closed,
    device_url,
    settings_module,
)
from tests.support.processes import LoggedProcess
from tests.support.queues import list_of
from tests.support.sync_state import is_at, session, the_run, waits_for_its_run
from tests.support.waiting import until
from tests.support.workers import StartServer, StartWorker
from worker import services
from worker.demo.attachment import device_attached
from worker.demo.verify import Verification, compare_app_rows
from worker.school.models import Attempt


def differences(tmp_path: Path) -> Verification:
    """Compare the app rows of the device and of the test database, column by column."""
    found = Verification()
    with device_attached(device_url(tmp_path)) as alias:
        connections[alias].connect()  # Django 5.2 lets tests use a database of their own once it is connected
        compare_app_rows(alias, set(), found)
    return found


def polls(tmp_path: Path) -> int:
    """Return the number of the clients' requests for the transfer session."""
    return (tmp_path / "server1.log").read_text().count('"GET /api/morango/v1/transfersessions/')


def test_await_ends_the_sync_after_the_run(
    device: StartDevice,
    live_http_server: StartServer,
    celery_worker_process: StartWorker,
    tmp_path: Path,
) -> None:
    # Given a sync that has reached the stage while no worker is there
    client = device(live_http_server(MORANGO_CELERY_MODE="await"))
    client.wait_until(waits_for_its_run, "waiting for its run")

    # Then it waits, however often it asks
    seen = polls(tmp_path)
    client.wait_until(lambda: polls(tmp_path) >= seen + 2, "asking again")
    assert client.is_running
    assert the_run().state == Run.State.PENDING
    assert not Attempt.objects.exists()

    # When a worker comes, then the sync ends, with the run
    celery_worker_process(concurrency=1)
    assert client.wait_until_ended() == 0, client.log()

    run = the_run()
    assert (run.state, run.saved, run.failed) == (Run.State.COMPLETED, RECORDS, 0)
    until(lambda: the_run().session_notified, "noted")
    assert_completed_and_closed()
    found = differences(tmp_path)
    assert (found.compared, found.summary) == (RECORDS, "")


def test_detach_ends_the_sync_before_the_run(
    device: StartDevice,
    live_http_server: StartServer,
    celery_worker_process: StartWorker,
    tmp_path: Path,
) -> None:
    # When a device syncs while no worker is there, then its sync ends all the same
    client = device(live_http_server(MORANGO_CELERY_MODE="detach"))
    assert client.wait_until_ended() == 0, client.log()
    assert_completed_and_closed()
    assert the_run().state == Run.State.PENDING
    assert the_run().sent_at is not None
    assert not Attempt.objects.exists()

    # When a worker comes, then the run completes by itself
    worker = celery_worker_process(concurrency=1)
    worker.wait_until(lambda: the_run().has_ended, "through with the run")

    run = the_run()
    assert (run.state, run.saved, run.failed) == (Run.State.COMPLETED, RECORDS, 0)
    found = differences(tmp_path)
    assert (found.compared, found.summary) == (RECORDS, "")
    assert_completed_and_closed()


@pytest.mark.slow
def test_client_without_async_operations_waits_in_its_last_request(
    device: StartDevice,
    live_http_server: StartServer,
    celery_worker_process: StartWorker,
    tmp_path: Path,
) -> None:
    # Given a client as of Morango 0.5, in the request that closes its session
    old = settings_module(
        tmp_path,
        "old",
        """
        from django.apps import AppConfig

        MORANGO_DISALLOW_ASYNC_OPERATIONS = True
        MORANGO_DISABLE_FSIC_V2_FORMAT = True

        class Old(AppConfig):
            name = "old_settings"

            def ready(self):
                from morango.sync.syncsession import TransferClient

                begin = TransferClient.__init__

                # With the settings alone, Morango's client would still use what the server is capable of.
                def begin_as_of_old(self, connection, *args):
                    connection.server_info["capabilities"] = []
                    begin(self, connection, *args)

                TransferClient.__init__ = begin_as_of_old

        INSTALLED_APPS = [*INSTALLED_APPS, "old_settings.Old"]
        """,
    )
    client = device(live_http_server(), **old)
    client.wait_until(Run.objects.exists, "in need of a run")
    assert is_at(transfer_stages.DESERIALIZING, transfer_statuses.PENDING)
    assert client.is_running

    # When a worker comes, then the request is answered once the run has completed
    celery_worker_process(concurrency=1)
    assert client.wait_until_ended() == 0, client.log()

    run = the_run()
    assert (run.state, run.saved, run.failed) == (Run.State.COMPLETED, RECORDS, 0)
    assert run.finished_at is not None
    assert run.finished_at < session().last_activity_timestamp
    assert_completed_and_closed()
    found = differences(tmp_path)
    assert (found.compared, found.summary) == (RECORDS, "")


def test_run_that_fails_ends_the_sync_with_an_error(
    device: StartDevice, live_http_server: StartServer, celery_worker_process: StartWorker, tmp_path: Path
) -> None:
    # Given a worker that can't plan a run
    broken = settings_module(
        tmp_path,
        "broken",
        """
        from django.apps import AppConfig

        class Broken(AppConfig):
            name = "broken_settings"

            def ready(self):
                from morango_celery.runs import batching

                def steps(profile):
                    raise RuntimeError("no plan today")

                batching.steps = steps

        INSTALLED_APPS = [*INSTALLED_APPS, "broken_settings.Broken"]
        """,
    )
    celery_worker_process(concurrency=1, **broken)

    # When a device syncs
    client = device(live_http_server())

    # Then it learns that the stage failed, and the server why
    assert client.wait_until_ended() == 1
    assert "MorangoError: Stage `deserializing` failed" in client.log()
    run = the_run()
    assert (run.state, run.error) == (Run.State.FAILED, "RuntimeError: no plan today")
    assert is_at(transfer_stages.DESERIALIZING, transfer_statuses.ERRORED)


def test_sync_while_redis_is_down_waits_in_the_ledger(
    device: StartDevice,
    live_http_server: StartServer,
    celery_worker_process: StartWorker,
    database_url: str,
    tmp_path: Path,
) -> None:
    # Given a server whose Redis is down
    port = services.free_port()
    redis_url = f"redis://127.0.0.1:{port}/0"

    # When a device syncs
    client = device(live_http_server(REDIS_URL=redis_url))

    # Then the request is answered as always, and the run is in the ledger
    client.wait_until(waits_for_its_run, "waiting for its run")
    run = the_run()
    assert (run.state, run.sent_at) == (Run.State.PENDING, None)
    assert '"PATCH' in (tmp_path / "server1.log").read_text()
    assert '" 500 ' not in (tmp_path / "server1.log").read_text()

    # When Redis is back, then recover_runs sends it
    with services.start_redis(port=port):
        recovery = LoggedProcess(
            ["worker", "recover_runs"],
            tmp_path / "recovery.log",
            {"DATABASE_URL": database_url, "REDIS_URL": redis_url},
        )
        assert recovery.wait_until_ended() == 0
        assert recovery.log() == "1 message sent.\n"
        assert the_run().sent_at is not None
        with Redis.from_url(redis_url) as queue:
            assert queue.llen(list_of(STARTING)) == 1

        # and a worker carries it out
        celery_worker_process(concurrency=1, REDIS_URL=redis_url)
        assert client.wait_until_ended() == 0, client.log()
    assert the_run().state == Run.State.COMPLETED
    assert_completed_and_closed()
