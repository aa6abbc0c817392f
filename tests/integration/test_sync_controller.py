"""Morango's session controller and our operation, at moments that matter, in this process."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from celery import states
from django.db import connections
from morango.constants import transfer_stages, transfer_statuses
from morango.models import Filter, Store, TransferSession
from morango.sync.context import LocalSessionContext
from morango.sync.controller import SessionController

from morango_celery.messaging.dispatch import CeleryDispatch
from morango_celery.models import Run
from morango_celery.runs.completion import notify_sessions
from morango_celery.runs.inprocess import run_in_process
from morango_celery.tasks import notify_session
from tests.support import factories
from tests.support.sync_state import (
    controller_of,
    dequeued_session,
    is_at,
    proceed,
    received_records,
    session,
    the_run,
    waits_for_its_run,
)
from tests.support.workers import StartWorker


@pytest.fixture
def records(transactional_db: None, settings: Any) -> int:
    """Make a Store as a sync leaves it: so many dirty, sound records. No request waits."""
    settings.MORANGO_CELERY = {**settings.MORANGO_CELERY, "REQUEST_WAIT_SECONDS": 0}
    return received_records()


def recover_all() -> None:
    from morango_celery import recover_runs

    recover_runs()


@pytest.mark.needs_postgresql
@pytest.mark.parametrize(
    "told_by", [lambda: notify_sessions(Run.objects.all()), recover_all], ids=["task", "recovery"]
)
def test_outcome_of_a_run_that_is_over_at_once_is_written_over_started(
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
    assert not the_run().session_notified

    # When it is told again, then the session is not stuck, however often STARTED comes back
    for _ in range(2):
        told_by()
        assert is_at(transfer_stages.DESERIALIZING, transfer_statuses.COMPLETED)
        assert not the_run().session_notified
        TransferSession.objects.update(transfer_stage_status=transfer_statuses.STARTED)
    told_by()

    # ... and that is over when the session has moved on
    assert proceed(transfer_session, transfer_stages.CLEANUP) == transfer_statuses.COMPLETED
    assert not session().active
    told_by()
    assert the_run().session_notified


@pytest.mark.needs_postgresql
def test_session_of_a_device_that_stays_away_is_left_to_recovery_without_an_error(
    records: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Given a run that is over, and a session that nobody asks for
    monkeypatch.setattr(CeleryDispatch, "start", lambda self, run: bool(run_in_process(run)))
    transfer_session = dequeued_session(records, push=True)
    assert proceed(transfer_session) == transfer_statuses.STARTED

    # When the task has looked at it as often as it does, at once instead of for a minute
    looked = notify_session.apply([the_run().pk], throw=False)

    # Then that is no error, and recovery goes on
    assert (looked.state, looked.result) == (states.SUCCESS, False)
    assert not the_run().session_notified
    assert proceed(transfer_session, transfer_stages.CLEANUP) == transfer_statuses.COMPLETED
    recover_all()
    assert the_run().session_notified


@pytest.mark.needs_postgresql
def test_stage_that_is_reached_twice_has_one_run(records: int, monkeypatch: pytest.MonkeyPatch) -> None:
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


@pytest.mark.needs_postgresql
def test_session_of_a_run_that_nobody_was_to_tell_is_told_once_it_waits(
    records: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Given a run begun for a client that looks for the outcome by itself
    monkeypatch.setattr(CeleryDispatch, "start", lambda self, run: True)
    transfer_session = dequeued_session(records, push=True)
    context = LocalSessionContext(request=object(), transfer_session=transfer_session, capabilities=set())
    asked = SessionController.build(context=context).proceed_to(transfer_stages.DESERIALIZING)
    assert asked == transfer_statuses.PENDING
    assert the_run().session_notified

    # When its session goes on with one that polls, and is answered that the run goes on
    assert proceed(transfer_session) == transfer_statuses.STARTED
    assert waits_for_its_run()

    # Then it is told when the run has ended
    run_in_process(the_run())
    assert is_at(transfer_stages.DESERIALIZING, transfer_statuses.COMPLETED)


def test_loop_in_this_process_asks_until_the_run_has_ended(
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
@pytest.mark.parametrize(
    ("state", "reason"), [(Run.State.FAILED, "no plan today"), (Run.State.CANCELLED, "was cancelled")]
)
def test_loop_in_this_process_learns_that_the_run_was_not_completed(
    records: int, monkeypatch: pytest.MonkeyPatch, state: Run.State, reason: str
) -> None:
    transfer_session = dequeued_session(records, push=False)
    controller = controller_of(transfer_session, is_server=False)
    monkeypatch.setattr(CeleryDispatch, "start", lambda self, run: True)
    assert controller.proceed_to(transfer_stages.DESERIALIZING) == transfer_statuses.PENDING

    Run.objects.update(state=state, error="no plan today")

    assert controller.proceed_to(transfer_stages.DESERIALIZING) == transfer_statuses.ERRORED
    assert reason in str(controller.context.error)
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

    monkeypatch.setattr("morango_celery.runs.batching.steps", no_plan)

    status = controller_of(transfer_session, is_server=push).proceed_to(transfer_stages.DESERIALIZING)

    assert status == transfer_statuses.ERRORED
    assert (the_run().state, the_run().error) == (Run.State.FAILED, "RuntimeError: no plan today")
    assert is_at(transfer_stages.DESERIALIZING, transfer_statuses.ERRORED)
