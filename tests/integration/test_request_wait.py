"""Requests that wait a moment for their sync's run, so that a small sync is completed in its first answer."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NoReturn

import pytest
from django.db import connection, transaction
from morango.constants import transfer_stages, transfer_statuses
from morango.models import TransferSession

from morango_celery.messaging.dispatch import CeleryDispatch
from morango_celery.models import Run
from morango_celery.operations import DeserializeOperation
from morango_celery.runs.inprocess import run_in_process
from morango_celery.runs.producer import create_run
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
from tests.support.waiting import held_partition
from tests.support.workers import StartWorker
from worker.school.models import PROFILE

pytestmark = pytest.mark.needs_postgresql

LONG_SECONDS = 30


@pytest.fixture
def wait_seconds(settings: Any) -> Callable[[float], None]:
    """Yield a function that sets the waiting time of requests."""

    def change(seconds: float) -> None:
        settings.MORANGO_CELERY = {**settings.MORANGO_CELERY, "REQUEST_WAIT_SECONDS": seconds}

    return change


@pytest.fixture
def transfer_session(transactional_db: None, wait_seconds: Callable[[float], None]) -> TransferSession:
    """Return a session that has come to the stage. Requests would wait longer for its run than any takes."""
    wait_seconds(LONG_SECONDS)
    return dequeued_session(received_records(), push=True)


@pytest.fixture
def no_pause(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(seconds: float) -> NoReturn:
        raise AssertionError(f"the request has paused for {seconds} s")

    monkeypatch.setattr("morango_celery.operations.time.sleep", refuse)


@pytest.fixture
def sent(monkeypatch: pytest.MonkeyPatch) -> list[Run]:
    """Yield the runs that were sent; nobody carries them out."""
    found: list[Run] = []

    def note(dispatch: CeleryDispatch, run: Run) -> bool:
        found.append(run)
        return True

    monkeypatch.setattr(CeleryDispatch, "start", note)
    return found


def ends(monkeypatch: pytest.MonkeyPatch, how: Callable[[Run], object]) -> None:
    """Let a run be over as soon as it is sent."""

    def start(dispatch: CeleryDispatch, run: Run) -> bool:
        how(Run.objects.get(pk=run.pk))
        return True

    monkeypatch.setattr(CeleryDispatch, "start", start)


def test_run_that_is_completed_in_time_is_completed_in_the_first_answer(
    transfer_session: TransferSession, celery_worker_process: StartWorker
) -> None:
    # Given a worker that has nothing else to do
    worker = celery_worker_process(concurrency=1)

    # When a polled server reaches the stage
    assert proceed(transfer_session) == transfer_statuses.COMPLETED

    # Then the records are there, and the request alone has told the session so
    assert (the_run().state, the_run().saved) == (Run.State.COMPLETED, transfer_session.records_total)
    assert is_at(transfer_stages.DESERIALIZING, transfer_statuses.COMPLETED)
    worker.wait_until(lambda: the_run().finalized, "through with the run")
    assert the_run().session_notified
    assert "notify_session" not in worker.log().partition(" ready.")[2]

    # ... which goes on as ever
    assert proceed(transfer_session, transfer_stages.CLEANUP) == transfer_statuses.COMPLETED
    assert not session().active


def test_run_that_takes_longer_is_answered_started_and_told_by_the_worker(
    transfer_session: TransferSession,
    celery_worker_process: StartWorker,
    wait_seconds: Callable[[float], None],
) -> None:
    worker = celery_worker_process(concurrency=1)
    wait_seconds(0.1)

    # Given a run that can't begin while its request waits
    with held_partition(factories.SCHOOL_ID):
        assert proceed(transfer_session) == transfer_statuses.STARTED
        assert waits_for_its_run()
        assert not the_run().session_notified

    # When it can, then the worker tells the session
    worker.wait_until(
        lambda: is_at(transfer_stages.DESERIALIZING, transfer_statuses.COMPLETED), "telling the session"
    )
    assert the_run().state == Run.State.COMPLETED


def test_request_looks_by_primary_key_and_no_longer_than_it_may(
    transfer_session: TransferSession,
    sent: list[Run],
    wait_seconds: Callable[[float], None],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    # Given a clock that pauses alone move on, and a run that nobody carries out
    clock = [0.0]
    monkeypatch.setattr("morango_celery.operations.time.monotonic", lambda: clock[0])
    pauses: list[float] = []
    looks: list[str] = []

    def pause(seconds: float) -> None:
        pauses.append(seconds)
        clock[0] += seconds

    def note(execute: Any, sql: str, *arguments: Any) -> Any:
        if pauses:
            looks.append(sql)
        return execute(sql, *arguments)

    monkeypatch.setattr("morango_celery.operations.time.sleep", pause)
    wait_seconds(0.8)

    # When its request waits
    with connection.execute_wrapper(note):
        assert proceed(transfer_session) == transfer_statuses.STARTED

    # Then it has paused for that time, and each look was one cheap statement
    assert sum(pauses) == pytest.approx(0.8)
    assert max(pauses) <= 0.03
    statement = looks[0]
    assert statement.startswith("SELECT ")
    assert statement.partition(" WHERE ")[2].startswith('"morango_celery_run"."id" = ')
    assert "filter" not in statement
    assert looks[: len(pauses)] == [statement] * len(pauses)


def test_loop_in_this_process_is_answered_completed_at_once(
    transfer_session: TransferSession, monkeypatch: pytest.MonkeyPatch
) -> None:
    ends(monkeypatch, run_in_process)
    transfer_session.push = False
    controller = controller_of(transfer_session, is_server=False)

    assert controller.proceed_to(transfer_stages.DESERIALIZING) == transfer_statuses.COMPLETED
    assert the_run().session_notified


def test_request_does_not_wait_while_workers_have_another_run(
    transfer_session: TransferSession, sent: list[Run], no_pause: None
) -> None:
    other = create_run(PROFILE, None, session_notified=True)

    assert proceed(transfer_session) == transfer_statuses.STARTED

    run = Run.objects.exclude(pk=other.pk).get()
    assert sent == [run]
    assert not run.session_notified  # but told by the worker


def test_request_waits_though_another_process_carries_out_a_run_itself(
    transfer_session: TransferSession, monkeypatch: pytest.MonkeyPatch
) -> None:
    create_run(PROFILE, None, session_notified=True, in_process=True)
    ends(monkeypatch, lambda run: Run.objects.filter(pk=run.pk).update(state=Run.State.COMPLETED))

    assert proceed(transfer_session) == transfer_statuses.COMPLETED


def test_run_of_an_open_transaction_is_sent_after_its_commit_and_not_waited_for(
    transfer_session: TransferSession, sent: list[Run], no_pause: None
) -> None:
    # When the request is one transaction, as with ATOMIC_REQUESTS
    with transaction.atomic():
        assert proceed(transfer_session) == transfer_statuses.STARTED
        assert sent == []

    assert sent == [the_run()]
    assert not the_run().session_notified


def test_run_that_the_broker_did_not_take_is_not_waited_for(
    transfer_session: TransferSession, monkeypatch: pytest.MonkeyPatch, no_pause: None
) -> None:
    monkeypatch.setattr(CeleryDispatch, "start", lambda self, run: False)

    assert proceed(transfer_session) == transfer_statuses.STARTED
    assert not the_run().session_notified


def test_detached_run_is_not_waited_for(
    transfer_session: TransferSession, sent: list[Run], no_pause: None, settings: Any
) -> None:
    settings.MORANGO_CELERY = {**settings.MORANGO_CELERY, "MODE": "detach"}

    assert proceed(transfer_session) == transfer_statuses.COMPLETED
    assert (sent, the_run().state) == ([the_run()], Run.State.PENDING)


@pytest.mark.parametrize(
    ("state", "reason"), [(Run.State.FAILED, "no plan today"), (Run.State.CANCELLED, "was cancelled")]
)
def test_run_that_is_not_completed_in_time_ends_the_stage_with_its_reason(
    transfer_session: TransferSession, monkeypatch: pytest.MonkeyPatch, state: Run.State, reason: str
) -> None:
    ends(monkeypatch, lambda run: Run.objects.filter(pk=run.pk).update(state=state, error="no plan today"))
    controller = controller_of(transfer_session, is_server=True)

    assert controller.proceed_to(transfer_stages.DESERIALIZING) == transfer_statuses.ERRORED
    assert reason in str(controller.context.error)
    assert is_at(transfer_stages.DESERIALIZING, transfer_statuses.ERRORED)


def test_run_that_ends_after_the_last_look_is_answered_completed(
    transfer_session: TransferSession, sent: list[Run], monkeypatch: pytest.MonkeyPatch
) -> None:
    # Given a worker that ends the run, and finds nobody to tell, when the request has waited in vain
    monkeypatch.setattr(
        DeserializeOperation, "_wait_for", lambda run: run_in_process(Run.objects.get(pk=run.pk))
    )

    assert proceed(transfer_session) == transfer_statuses.COMPLETED
    assert the_run().session_notified


def test_session_of_a_request_that_died_while_it_waited_is_told_once_it_asks_again(
    transfer_session: TransferSession, sent: list[Run], monkeypatch: pytest.MonkeyPatch
) -> None:
    # Given a web process that was ended while it waited
    class EndedError(BaseException):
        pass

    def end(run: Run) -> NoReturn:
        raise EndedError

    monkeypatch.setattr(DeserializeOperation, "_wait_for", end)
    with pytest.raises(EndedError):
        proceed(transfer_session)
    assert is_at(transfer_stages.DESERIALIZING, transfer_statuses.PENDING)

    # When the client asks again, then it is answered that the run goes on
    assert proceed(transfer_session) == transfer_statuses.STARTED
    assert sent == [the_run()]

    # ... and told when it has ended
    run_in_process(the_run())
    assert is_at(transfer_stages.DESERIALIZING, transfer_statuses.COMPLETED)
