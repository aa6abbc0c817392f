"""Morango's own syncs with our operation in the deserializing stage.

Over HTTP a second instance, a process of its own on SQLite, pushes to a real server with real workers;
what can't be timed from outside is driven through Morango's session controller in this process.
"""

from __future__ import annotations

import textwrap
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Protocol

import pytest
from django.core.management import call_command
from django.db import connections
from django.utils import timezone
from morango.constants import transfer_stages, transfer_statuses
from morango.constants.capabilities import ASYNC_OPERATIONS
from morango.models import Filter, Store, SyncSession, TransferSession
from morango.models.fields.crypto import Key
from morango.sync.context import LocalSessionContext
from morango.sync.controller import SessionController
from redis import Redis

from morango_celery.models import Run
from morango_celery.runs.handover import hand_over
from morango_celery.runs.inprocess import run_in_process
from morango_celery.tasks import CeleryDispatch
from tests import factories
from tests.conftest import StartServer, StartWorker
from tests.processes import LoggedProcess
from worker import services
from worker.demo import server
from worker.demo.verify import Verification, compare_app_rows
from worker.environment import database
from worker.school.models import PROFILE, Attempt

RECORDS = 120
DEVICE = "device"


class StartDevice(Protocol):
    def __call__(self, url: str, **environment: str) -> LoggedProcess: ...


@pytest.fixture(scope="session")
def root_key() -> Key:
    """Made once: it takes a while where Morango has to do it in Python."""
    return Key()


@pytest.fixture
def device(
    transactional_db: None, tmp_path: Path, root_key: Key, monkeypatch: pytest.MonkeyPatch
) -> Iterator[StartDevice]:
    """A function that starts a device, which pushes `RECORDS` sound records to the server at the URL.

    Its keyword arguments are further environment variables of the device.
    """
    with monkeypatch.context() as patch:
        patch.setattr("morango.models.certificates.Key", lambda **given: Key(**given) if given else root_key)
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


def device_url(tmp_path: Path) -> str:
    return f"sqlite:///{tmp_path / 'device.sqlite3'}"


def differences(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Verification:
    """The app rows of the device and of the test database, compared column by column."""
    monkeypatch.setenv("DEVICE_DATABASE_URL", device_url(tmp_path))
    connections.databases[DEVICE] = database("DEVICE_DATABASE_URL")
    found = Verification()
    try:
        compare_app_rows(DEVICE, set(), found)
    finally:
        connections[DEVICE].close()
        del connections[DEVICE]
        del connections.databases[DEVICE]
    return found


def settings_module(tmp_path: Path, name: str, text: str, **modules: str) -> dict[str, str]:
    """Environment variables for a process whose settings are the deployment's and then `text`.

    :param modules: names and contents of further modules that the process can import
    """
    folder = tmp_path / name
    folder.mkdir()
    modules[f"{name}_settings"] = f"from worker.settings import *\n{textwrap.dedent(text)}"
    for module, content in modules.items():
        (folder / f"{module}.py").write_text(textwrap.dedent(content))
    return {"PYTHONPATH": str(folder), "DJANGO_SETTINGS_MODULE": f"{name}_settings"}


def the_run() -> Run:
    return Run.objects.get()


def session() -> TransferSession:
    return TransferSession.objects.get()


def is_at(stage: str, status: str) -> bool:
    return bool(TransferSession.objects.filter(transfer_stage=stage, transfer_stage_status=status).exists())


def waits_for_its_run() -> bool:
    return Run.objects.exists() and is_at(transfer_stages.DESERIALIZING, transfer_statuses.STARTED)


def polls(tmp_path: Path) -> int:
    """How often clients have asked the server for the transfer session."""
    return (tmp_path / "server1.log").read_text().count('"GET /api/morango/v1/transfersessions/')


def assert_completed_and_closed() -> None:
    assert is_at(transfer_stages.CLEANUP, transfer_statuses.COMPLETED)
    assert not session().active
    assert not SyncSession.objects.get().active


# Over HTTP


def test_await_ends_the_sync_after_the_run(
    device: StartDevice,
    live_http_server: StartServer,
    celery_worker_process: StartWorker,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    # Given a sync that has reached the stage while no worker is there
    client = device(live_http_server(MORANGO_CELERY_MODE="await"))
    client.wait_until(waits_for_its_run, "waiting for its run", timeout_seconds=60)

    # Then it waits, however often it asks
    seen = polls(tmp_path)
    client.wait_until(lambda: polls(tmp_path) >= seen + 2, "asking again")
    assert client.is_running
    assert the_run().state == Run.State.PENDING
    assert not Attempt.objects.exists()

    # When a worker comes, then the sync ends, with the run
    celery_worker_process(concurrency=1)
    assert client.wait_until_ended(timeout_seconds=60) == 0, client.log()

    run = the_run()
    assert (run.state, run.saved, run.failed) == (Run.State.COMPLETED, RECORDS, 0)
    assert run.handed_over
    assert_completed_and_closed()
    found = differences(tmp_path, monkeypatch)
    assert (found.compared, found.summary) == (RECORDS, "")


def test_detach_ends_the_sync_before_the_run(
    device: StartDevice,
    live_http_server: StartServer,
    celery_worker_process: StartWorker,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    # When a device syncs while no worker is there, then its sync ends all the same
    client = device(live_http_server(MORANGO_CELERY_MODE="detach"))
    assert client.wait_until_ended(timeout_seconds=60) == 0, client.log()
    assert_completed_and_closed()
    assert the_run().state == Run.State.PENDING
    assert the_run().sent_at is not None
    assert not Attempt.objects.exists()

    # When a worker comes, then the run completes by itself
    worker = celery_worker_process(concurrency=1)
    worker.wait_until(lambda: the_run().is_finished, "through with the run")

    run = the_run()
    assert (run.state, run.saved, run.failed) == (Run.State.COMPLETED, RECORDS, 0)
    found = differences(tmp_path, monkeypatch)
    assert (found.compared, found.summary) == (RECORDS, "")
    assert_completed_and_closed()


def test_a_run_that_ends_before_morango_has_written_started(
    device: StartDevice, live_http_server: StartServer, celery_worker_process: StartWorker, tmp_path: Path
) -> None:
    # Given a server whose middleware gets the operation's answer only after the run has ended
    late = settings_module(
        tmp_path,
        "late",
        'MORANGO_DESERIALIZE_OPERATIONS = ("late:Late", *MORANGO_DESERIALIZE_OPERATIONS)',
        late="""
        import logging
        import time

        from morango_celery.models import Run
        from morango_celery.operations import DeserializeOperation

        class Late(DeserializeOperation):
            def handle(self, context):
                answer = super().handle(context)
                while not Run.objects.get().is_finished:
                    time.sleep(0.02)
                logging.info("the run has ended, and the answer is %s", answer)
                return answer
        """,
    )
    celery_worker_process(concurrency=1)

    # When a device syncs
    client = device(live_http_server(**late))

    # Then its sync ends
    assert client.wait_until_ended(timeout_seconds=90) == 0, client.log()
    assert "the run has ended, and the answer is started" in (tmp_path / "server1.log").read_text()
    assert the_run().handed_over
    assert_completed_and_closed()


def test_a_client_without_async_operations_waits_in_its_last_request(
    device: StartDevice,
    live_http_server: StartServer,
    celery_worker_process: StartWorker,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
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
    client.wait_until(Run.objects.exists, "in need of a run", timeout_seconds=60)
    assert is_at(transfer_stages.DESERIALIZING, transfer_statuses.PENDING)
    assert client.is_running

    # When a worker comes, then the request is answered once the run has completed
    celery_worker_process(concurrency=1)
    assert client.wait_until_ended(timeout_seconds=60) == 0, client.log()

    run = the_run()
    assert (run.state, run.saved, run.failed) == (Run.State.COMPLETED, RECORDS, 0)
    assert run.finished_at is not None
    assert run.finished_at < session().last_activity_timestamp
    assert_completed_and_closed()
    found = differences(tmp_path, monkeypatch)
    assert (found.compared, found.summary) == (RECORDS, "")


def test_a_run_that_fails_ends_the_sync_with_an_error(
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
                from morango_celery.runs import producer

                def steps(profile):
                    raise RuntimeError("no plan today")

                producer.steps = steps

        INSTALLED_APPS = [*INSTALLED_APPS, "broken_settings.Broken"]
        """,
    )
    celery_worker_process(concurrency=1, **broken)

    # When a device syncs
    client = device(live_http_server())

    # Then it learns that the stage failed, and the server why
    assert client.wait_until_ended(timeout_seconds=60) == 1
    assert "MorangoError: Stage `deserializing` failed" in client.log()
    run = the_run()
    assert (run.state, run.error) == (Run.State.FAILED, "RuntimeError: no plan today")
    assert run.handed_over
    assert is_at(transfer_stages.DESERIALIZING, transfer_statuses.ERRORED)


def test_a_sync_while_redis_is_down_waits_in_the_ledger(
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
    client.wait_until(waits_for_its_run, "waiting for its run", timeout_seconds=60)
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
        assert recovery.log() == "1 messages sent.\n"
        assert the_run().sent_at is not None
        with Redis.from_url(redis_url) as queue:
            assert queue.llen("celery") == 1

        # and a worker carries it out
        celery_worker_process(concurrency=1, REDIS_URL=redis_url)
        assert client.wait_until_ended(timeout_seconds=60) == 0, client.log()
    assert the_run().state == Run.State.COMPLETED
    assert_completed_and_closed()


# Through Morango's controller, in this process


@pytest.fixture
def records(transactional_db: None) -> int:
    """A Store as a sync leaves it: so many dirty records that nothing is wrong with."""
    call_command("loaddata", "scopedefinitions", verbosity=0)
    return sum(factories.fill_store(RECORDS).values())


def dequeued_session(records: int, *, push: bool) -> TransferSession:
    """A session of `factories.SCHOOL_ID` that has everything behind it but deserializing."""
    now = timezone.now()
    sync_session = SyncSession.objects.create(
        id=uuid.uuid4().hex,
        profile=PROFILE,
        connection_kind="network",
        connection_path="http://127.0.0.1",
        last_activity_timestamp=now,
    )
    return TransferSession.objects.create(
        id=uuid.uuid4().hex,
        filter=factories.SCHOOL_ID,
        push=push,
        sync_session=sync_session,
        records_transferred=records,
        records_total=records,
        last_activity_timestamp=now,
        transfer_stage=transfer_stages.DEQUEUING,
        transfer_stage_status=transfer_statuses.COMPLETED,
    )


def controller_of(transfer_session: TransferSession, *, is_server: bool) -> SessionController:
    context = LocalSessionContext(
        request=object() if is_server else None,
        transfer_session=transfer_session,
        capabilities={ASYNC_OPERATIONS},
    )
    return SessionController.build(context=context)


def proceed(transfer_session: TransferSession, stage: str = transfer_stages.DESERIALIZING) -> str:
    """What the controller of a server, asked by a client that polls, makes of the session."""
    fresh = TransferSession.objects.get(pk=transfer_session.pk)
    status: str = controller_of(fresh, is_server=True).proceed_to(stage)
    return status


def recover_all() -> None:
    from morango_celery import recover_runs

    recover_runs()


@pytest.mark.needs_postgresql
@pytest.mark.parametrize("told_by", [lambda: hand_over(the_run()), recover_all], ids=["task", "recovery"])
def test_the_outcome_of_a_run_that_is_over_at_once_is_written_over_started(
    records: int, monkeypatch: pytest.MonkeyPatch, told_by: Callable[[], object]
) -> None:
    # Given a worker so quick that the run is over before the operation returns
    monkeypatch.setattr(CeleryDispatch, "start", lambda self, run: bool(run_in_process(run)))
    transfer_session = dequeued_session(records, push=True)

    # When a polled server reaches the stage, then Morango writes STARTED over a run that has ended
    assert proceed(transfer_session) == transfer_statuses.STARTED
    assert the_run().state == Run.State.COMPLETED
    assert the_run().saved == records
    assert waits_for_its_run()
    assert not the_run().handed_over

    # When it is told again, then the session is not stuck
    told_by()
    assert the_run().handed_over
    assert is_at(transfer_stages.DESERIALIZING, transfer_statuses.COMPLETED)
    assert proceed(transfer_session, transfer_stages.CLEANUP) == transfer_statuses.COMPLETED
    assert not session().active


@pytest.mark.needs_postgresql
def test_a_stage_that_is_reached_twice_has_one_run(records: int, monkeypatch: pytest.MonkeyPatch) -> None:
    sent: list[Run] = []

    def note(dispatch: CeleryDispatch, run: Run) -> bool:
        sent.append(run)
        return True

    monkeypatch.setattr(CeleryDispatch, "start", note)
    transfer_session = dequeued_session(records, push=True)
    assert proceed(transfer_session) == transfer_statuses.STARTED

    # Given a server that died before it wrote STARTED
    TransferSession.objects.update(transfer_stage_status=transfer_statuses.PENDING)
    assert proceed(transfer_session) == transfer_statuses.STARTED

    assert sent == [the_run()]


def test_a_loop_in_this_process_asks_until_the_run_has_ended(
    records: int, celery_worker_process: StartWorker
) -> None:
    # Given a client that pulls, and so deserializes here, while no worker is there
    transfer_session = dequeued_session(records, push=False)
    controller = controller_of(transfer_session, is_server=False)
    seen: list[str] = []

    def look() -> None:
        seen.append(controller.context.stage_status)
        if len(seen) == 2:
            celery_worker_process(concurrency=1)

    # When Morango's loop waits for the stage
    status = controller.proceed_to_and_wait_for(transfer_stages.DESERIALIZING, callback=look)

    # Then it was asked to come again until the run had ended
    assert status == transfer_statuses.COMPLETED
    assert seen[:2] == [transfer_statuses.PENDING] * 2
    assert seen[-1] == transfer_statuses.COMPLETED
    run = the_run()
    assert (run.state, run.saved) == (Run.State.COMPLETED, records)
    assert is_at(transfer_stages.DESERIALIZING, transfer_statuses.COMPLETED)


@pytest.mark.needs_postgresql
def test_a_loop_in_this_process_learns_that_the_run_failed(
    records: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    transfer_session = dequeued_session(records, push=False)
    controller = controller_of(transfer_session, is_server=False)
    monkeypatch.setattr(CeleryDispatch, "start", lambda self, run: True)
    assert controller.proceed_to(transfer_stages.DESERIALIZING) == transfer_statuses.PENDING

    Run.objects.update(state=Run.State.FAILED, error="no plan today")

    assert controller.proceed_to(transfer_stages.DESERIALIZING) == transfer_statuses.ERRORED
    assert "no plan today" in str(controller.context.error)
    assert is_at(transfer_stages.DESERIALIZING, transfer_statuses.ERRORED)


@pytest.mark.parametrize("push", [True, False], ids=["as-server", "as-client"])
def test_without_celery_the_stage_is_done_when_the_controller_returns(
    records: int, push: bool, settings: Any
) -> None:
    # Given SQLite, or a PostgreSQL deployment that wants no workers
    if connections["default"].vendor == "postgresql":
        settings.MORANGO_CELERY = {**settings.MORANGO_CELERY, "IN_PROCESS": True}
    transfer_session = dequeued_session(records, push=push)

    status = controller_of(transfer_session, is_server=push).proceed_to(transfer_stages.DESERIALIZING)

    assert status == transfer_statuses.COMPLETED
    run = the_run()
    assert (run.state, run.saved, run.filter) == (
        Run.State.COMPLETED,
        records,
        str(Filter(factories.SCHOOL_ID)),
    )
    assert not Store.objects.filter(dirty_bit=True).exists()
    assert sum(len(rows) for rows in factories.app_rows().values()) == records
    assert is_at(transfer_stages.DESERIALIZING, transfer_statuses.COMPLETED)


@pytest.mark.parametrize("push", [True, False], ids=["as-server", "as-client"])
def test_without_celery_an_error_ends_the_stage(
    records: int, push: bool, settings: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings.MORANGO_CELERY = {**settings.MORANGO_CELERY, "IN_PROCESS": True}
    transfer_session = dequeued_session(records, push=push)

    def no_plan(profile: str) -> Any:
        raise RuntimeError("no plan today")

    monkeypatch.setattr("morango_celery.runs.producer.steps", no_plan)

    status = controller_of(transfer_session, is_server=push).proceed_to(transfer_stages.DESERIALIZING)

    assert status == transfer_statuses.ERRORED
    assert (the_run().state, the_run().error) == (Run.State.FAILED, "RuntimeError: no plan today")
    assert is_at(transfer_stages.DESERIALIZING, transfer_statuses.ERRORED)
