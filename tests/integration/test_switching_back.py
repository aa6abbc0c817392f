"""Switching back to Morango's own operation while runs are open: docs/how-to/switch-over.md tells how."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest
from morango.constants import transfer_stages, transfer_statuses
from morango.models import Store, TransferSession
from morango.registry import session_middleware

from morango_celery import cancel, recover_runs
from morango_celery.messaging.dispatch import CeleryDispatch
from morango_celery.models import Batch, Run
from morango_celery.operations import DeserializeOperation
from morango_celery.runs.batching import open_batches
from morango_celery.runs.execution import execute_batch
from morango_celery.runs.message import NOBODYS
from morango_celery.worker import run_steps
from tests.support import factories
from tests.support.sync_state import dequeued_session, proceed, received_records
from worker.school.models import Unit

pytestmark = [pytest.mark.django_db(transaction=True), pytest.mark.needs_postgresql]


@pytest.fixture
def switch_back(request: pytest.FixtureRequest, settings: Any) -> Iterator[Callable[[], None]]:
    """Yield a function that gives the stage back to Morango: by the mode, or without our operation.

    It is by the mode, unless the test's parameter says otherwise.
    """
    (operations,) = (
        each for each in session_middleware if each.related_stage == transfer_stages.DESERIALIZING
    )
    before = list(operations)

    def change() -> None:
        if getattr(request, "param", "mode") == "mode":
            settings.MORANGO_CELERY = {**settings.MORANGO_CELERY, "MODE": "compare", "COMPARE_SHARE": 0}
        else:
            operations[:] = [each for each in before if not isinstance(each, DeserializeOperation)]

    yield change
    operations[:] = before


@pytest.fixture
def open_runs(settings: Any, monkeypatch: pytest.MonkeyPatch) -> list[TransferSession]:
    """Leave two syncs with open runs: of one, a batch is done and others wait; the other hasn't begun."""
    settings.MORANGO_CELERY = {"BATCH_SIZE_RECORDS": 25, "REQUEST_WAIT_SECONDS": 0}
    monkeypatch.setattr(CeleryDispatch, "start", lambda self, run: True)
    monkeypatch.setattr(CeleryDispatch, "batches", lambda self, batches: len(batches))
    sessions = [dequeued_session(received_records(), push=True)]
    assert proceed(sessions[0]) == transfer_statuses.STARTED
    begun = Run.objects.get()
    run_steps.start_or_continue(begun.pk, NOBODYS)
    while Batch.objects.filter(run=begun, state="open").count() < 2:
        complete_stage(begun)
    first, *_ = open_batches(begun)
    execute_batch(first.pk, first.ids_sha256)
    sessions.append(dequeued_session(1, push=True))
    assert proceed(sessions[1]) == transfer_statuses.STARTED
    return sessions


def complete_stage(run: Run) -> None:
    """Carry out the messages of a run's open batches, as a worker does."""
    for batch in list(open_batches(run)):
        run_steps.execute(batch.pk, run.pk, batch.ids_sha256, NOBODYS)


def carry_out_messages() -> None:
    """Carry out all messages that are left, until no run is open."""
    while unfinished := list(Run.objects.filter(state__in=Run.UNFINISHED).order_by("pk")):
        for run in unfinished:
            run_steps.start_or_continue(run.pk, NOBODYS)
            complete_stage(run)
    recover_runs(all_unfinished=True)


@pytest.mark.parametrize("switch_back", ["mode", "operation"], indirect=True)
def test_morango_deserializes_and_open_runs_find_nothing_left(
    open_runs: list[TransferSession], switch_back: Callable[[], None]
) -> None:
    begun, waiting = Run.objects.order_by("pk")
    done_before = Run.objects.get(pk=begun.pk).done
    left = Store.objects.filter(dirty_bit=True).count()
    assert begun.open_batches
    assert waiting.state == Run.State.PENDING
    assert left

    # When the server is switched back, and the next sync of the school comes
    switch_back()
    more = factories.store_row("unit", name="came later")
    assert proceed(dequeued_session(1, push=True)) == transfer_statuses.COMPLETED

    # Then Morango has deserialized all that was dirty, whoever brought it
    assert Run.objects.count() == 2
    assert not Store.objects.filter(dirty_bit=True).exists()
    assert Unit.objects.get(pk=more.pk).name == "came later"
    rows = factories.app_rows()

    # ... and the workers end the open runs, which find nothing left and change nothing
    carry_out_messages()
    begun.refresh_from_db()
    assert set(Run.objects.values_list("state", flat=True)) == {Run.State.COMPLETED}
    assert (begun.done, begun.failed) == (done_before, 0)
    assert factories.app_rows() == rows
    for session in open_runs:
        session.refresh_from_db()
        assert (session.transfer_stage, session.transfer_stage_status) == (
            transfer_stages.DESERIALIZING,
            transfer_statuses.COMPLETED,
        )


def test_runs_that_workers_end_before_the_next_sync_lose_nothing(
    open_runs: list[TransferSession], switch_back: Callable[[], None]
) -> None:
    switch_back()

    carry_out_messages()

    assert not Store.objects.filter(dirty_bit=True).exists()
    stored = dict.fromkeys(Store.objects.values_list("model_name", flat=True), 0)
    for name in Store.objects.values_list("model_name", flat=True):
        stored[name] += 1
    assert {name: len(rows) for name, rows in factories.app_rows().items() if rows} == stored
    assert {session.pk for session in TransferSession.objects.filter(transfer_stage_status="completed")} == {
        session.pk for session in open_runs
    }


def test_cancelled_runs_leave_their_records_to_morango_without_any_worker(
    open_runs: list[TransferSession], switch_back: Callable[[], None]
) -> None:
    switch_back()

    # When the workers are gone for good, and the runs are cancelled
    for run in Run.objects.all():
        cancel(run.pk)

    # Then no session waits, and the next sync's stage does the rest
    assert set(TransferSession.objects.values_list("transfer_stage_status", flat=True)) == {"errored"}
    assert Store.objects.filter(dirty_bit=True).exists()
    assert proceed(dequeued_session(1, push=True)) == transfer_statuses.COMPLETED
    assert not Store.objects.filter(dirty_bit=True).exists()
