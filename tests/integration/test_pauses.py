"""Pauses: what they hold is taken in and waits, and goes on when somebody resumes it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from morango.constants import transfer_stages, transfer_statuses
from morango.models import Store
from morango.models.certificates import Filter

import morango_celery
from morango_celery.deserialization import BatchResult
from morango_celery.errors import PausedError, UsageError
from morango_celery.models import Batch, Pause, Run
from morango_celery.runs import control, exclusive, pausing
from morango_celery.runs.attempts import attempt_batch
from morango_celery.runs.batching import open_batches
from morango_celery.runs.execution import Execution, execute_batch
from morango_celery.runs.opening import attempt_opening, attempt_start
from morango_celery.runs.producer import advance, create_run, start
from morango_celery.runs.recovery import recover
from morango_celery.runs.status import stalled, status_of
from tests.support.factories import SCHOOL_ID, store_row
from tests.support.run_helpers import RecordingDispatcher, ago, dirty_ids, new_run, sent, unit
from tests.support.sync_state import (
    controller_of,
    dequeued_session,
    is_at,
    proceed,
    received_records,
    session,
)
from tests.support.workers import StartWorker
from worker.school.models import PROFILE, Unit

pytestmark = [pytest.mark.django_db, pytest.mark.usefixtures("serializable_in_a_transaction")]

OTHER = "ab" * 16


def under(*prefixes: str, **columns: Any) -> Run:
    options = {"serialize_first": False, "session_notified": True, **columns}
    return create_run(PROFILE, Filter("\n".join(prefixes)) if prefixes else None, **options)


def resumed(*scope: Any) -> set[str]:
    """Resume, and return the messages that are sent for it."""
    dispatch = RecordingDispatcher()
    recover(dispatch, all_unfinished=True, run_ids=pausing.resume(*scope).run_ids)
    return set(dispatch.sent)


def sent_by_recovery(**options: Any) -> set[str]:
    dispatch = RecordingDispatcher()
    recover(dispatch, **options)
    return set(dispatch.sent)


def state_of(run: Run) -> tuple[str, bool, int]:
    run.refresh_from_db()
    return run.state, run.paused, run.attempts


@pytest.fixture
def two_batches(batch_size: Callable[[int], None]) -> list[Batch]:
    batch_size(1)
    unit()
    unit()
    return list(open_batches(start(new_run(**sent()).pk).run))


def test_run_that_comes_during_a_pause_waits_and_is_sent_at_its_end() -> None:
    # Given a pause, and a run whose message a worker gets
    unit()
    pausing.pause()
    run = new_run(**sent())
    progress, execution = attempt_start(run.pk)

    # Then nothing of it is begun, and it counts as no attempt
    assert (progress.opened, progress.ended, execution) == (False, False, None)
    assert state_of(run) == (Run.State.PENDING, True, 0)
    assert len(dirty_ids()) == 1

    # When the pause ends, then the run is sent, and carried out as ever
    assert resumed() == {f"run {run.pk}"}
    assert state_of(run) == (Run.State.PENDING, False, 0)
    attempt_start(run.pk)
    assert state_of(run) == (Run.State.COMPLETED, False, 0)
    assert dirty_ids() == set()


def test_batch_of_a_paused_run_is_not_begun_and_needs_another_message(two_batches: list[Batch]) -> None:
    # Given two batches that were sent, and a pause
    done, held = two_batches
    Batch.objects.update(**sent())
    pausing.pause(PROFILE)

    # When one had begun before, then it is completed
    assert execute_batch(done.pk, done.ids_sha256).result is not None

    # When a worker gets the message of the other
    execution = attempt_batch(held.pk, held.ids_sha256)

    # Then it does nothing, whenever the message comes again
    assert (execution.result, execution.batches_to_send) == (None, ())
    assert attempt_batch(held.pk, held.ids_sha256) == execution
    held.refresh_from_db()
    assert (held.state, held.attempts, held.sent_at) == (Batch.State.OPEN, 0, None)
    assert resumed(PROFILE) == {f"batch {held.pk}"}
    assert attempt_batch(held.pk, held.ids_sha256).stage_is_done


def test_last_batch_of_a_stage_is_completed_and_the_next_stage_is_not_opened(
    batch_size: Callable[[int], None],
) -> None:
    # Given a run of two stages, whose first one ends during a pause
    batch_size(1)
    parent = unit()
    store_row("lesson", unit_id=parent.id)
    run = start(new_run(**sent()).pk).run
    pausing.pause()
    for batch in open_batches(run):
        assert execute_batch(batch.pk).stage_is_done

    # Then the next one isn't opened before the pause has ended
    assert not attempt_opening(run.pk, lambda run: advance(run.pk)).opened
    assert state_of(run) == (Run.State.RUNNING, True, 0)
    assert sent_by_recovery(all_unfinished=True) == set()
    assert resumed() == {f"run {run.pk}"}
    assert attempt_opening(run.pk, lambda run: advance(run.pk)).opened


def test_recovery_sends_nothing_that_is_paused(two_batches: list[Batch]) -> None:
    waiting, free = new_run(), under(OTHER)
    pausing.pause(PROFILE, Filter(SCHOOL_ID))
    late = under(SCHOOL_ID)

    assert sent_by_recovery(all_unfinished=True) == {f"run {free.pk}"}

    running = two_batches[0].run
    assert [state_of(run)[1] for run in (waiting, running, late, free)] == [True, True, True, False]
    assert resumed() == {f"run {waiting.pk}", f"run {late.pk}", *(f"batch {each.pk}" for each in two_batches)}


def test_worker_passes_on_no_exclusive_batch_of_a_paused_run(two_batches: list[Batch]) -> None:
    Batch.objects.update(attempted_at=ago(5), overdue_at=None)
    ended = Execution(None, BatchResult(had_exclusive_models=True), stage_is_done=False)
    assert len(exclusive.pass_on(ended).batches_to_send) == 1

    pausing.pause()

    assert exclusive.pass_on(ended).batches_to_send == ()


@pytest.mark.parametrize(
    ("prefixes", "is_held"),
    [
        ((f"{SCHOOL_ID}:units",), True),
        ((SCHOOL_ID,), True),
        ((OTHER, SCHOOL_ID[:8]), True),
        ((), True),
        ((f"{SCHOOL_ID}:learners",), False),
        ((OTHER,), False),
    ],
)
def test_pause_of_a_filter_holds_runs_that_share_partitions(prefixes: tuple[str, ...], is_held: bool) -> None:
    pausing.pause(PROFILE, Filter(f"{SCHOOL_ID}:units\n{'cd' * 16}"))
    run = under(*prefixes)

    attempt_start(run.pk)

    assert (run.pk in {each.pk for each in Run.objects.filter(paused=True)}) is is_held
    run.refresh_from_db()
    assert run.has_ended is not is_held


def test_pause_of_a_profile_holds_no_other_profile(two_batches: list[Batch]) -> None:
    pausing.pause("another profile")

    first, last = two_batches
    assert attempt_batch(first.pk, first.ids_sha256).result is not None
    assert attempt_batch(last.pk, last.ids_sha256).stage_is_done
    assert not Run.objects.filter(paused=True).exists()


def test_run_goes_on_only_when_no_pause_holds_it() -> None:
    run = new_run()
    pausing.pause()
    pausing.pause(PROFILE, Filter(SCHOOL_ID))
    assert Pause.objects.count() == 2
    assert pausing.pause(PROFILE, Filter(f"{SCHOOL_ID}\n{SCHOOL_ID}:units")) == Pause.objects.latest("pk")

    assert resumed(PROFILE, Filter(SCHOOL_ID)) == set()
    assert state_of(run)[1]
    with pytest.raises(UsageError, match=r"no such pause\. Paused: all runs, since"):
        pausing.resume(PROFILE)
    assert resumed() == {f"run {run.pk}"}
    with pytest.raises(UsageError, match="Nothing is paused"):
        pausing.resume()


def test_worker_that_sees_a_pause_end_goes_on(monkeypatch: pytest.MonkeyPatch) -> None:
    # Given a worker that has read a pause, which ends before it can mark the run
    unit()
    made = pausing.pause()
    run = new_run()
    looks = iter([[made], []])
    pausing.resume()
    Pause.objects.create(profile="another profile")
    monkeypatch.setattr(pausing, "in_force", lambda: next(looks))

    # When it looks again, then nothing holds the run, which is not left with a mark
    assert pausing.hold(Run.objects.filter(pk=run.pk)) is None
    assert not state_of(run)[1]


def test_paused_run_is_not_stalled_and_says_that_it_waits() -> None:
    run = new_run(**sent(5000))
    Run.objects.update(last_activity_at=ago(5000))
    assert list(stalled()) == [run]

    pausing.pause()

    assert list(stalled()) == []
    assert (status_of(run.pk).is_stalled, status_of(run.pk).state) == (False, "paused")


def test_ended_run_is_paused_no_more() -> None:
    run = new_run()
    pausing.pause()
    assert state_of(run)[1]

    control.cancel(run.pk)

    assert state_of(run) == (Run.State.CANCELLED, False, 0)


def test_run_in_process_is_refused_during_a_pause() -> None:
    unit()
    ended = morango_celery.deserialize(PROFILE, in_process=True)
    unit()
    morango_celery.pause(PROFILE, reason="the disk is full")

    with pytest.raises(PausedError, match=r"^Nothing was done: Paused: school \(the disk is full\), since"):
        morango_celery.deserialize(PROFILE, in_process=True)
    with pytest.raises(PausedError):
        morango_celery.retry(ended.pk)
    with pytest.raises(PausedError):
        morango_celery.deserialize_from_store(PROFILE)

    assert (Run.objects.count(), len(dirty_ids())) == (1, 1)
    assert morango_celery.resume(PROFILE) == []
    assert morango_celery.deserialize(PROFILE, in_process=True).saved == 1


def test_filter_without_a_profile_pauses_nothing() -> None:
    with pytest.raises(UsageError, match="give both"):
        morango_celery.pause(None, SCHOOL_ID)
    assert not Pause.objects.exists()


def test_sync_that_is_deserialized_in_its_request_is_answered_pending_until_the_end_of_the_pause(
    settings: Any,
) -> None:
    settings.MORANGO_CELERY = {"IN_PROCESS": True}
    transfer = dequeued_session(received_records(), push=False)
    pausing.pause()
    controller = controller_of(transfer, is_server=False)

    assert controller.proceed_to(transfer_stages.DESERIALIZING) == transfer_statuses.PENDING
    assert not Run.objects.exists()

    pausing.resume()
    assert controller.proceed_to(transfer_stages.DESERIALIZING) == transfer_statuses.COMPLETED
    assert not Store.objects.filter(dirty_bit=True).exists()


@pytest.mark.django_db(transaction=True)
def test_device_polls_during_a_pause_and_gets_the_outcome_after_it(
    celery_worker_process: StartWorker, settings: Any
) -> None:
    # Given a pause, and a sync whose request would wait for half a minute
    settings.MORANGO_CELERY = {**settings.MORANGO_CELERY, "REQUEST_WAIT_SECONDS": 30}
    worker = celery_worker_process(concurrency=1)
    transfer = dequeued_session(received_records(), push=True)
    morango_celery.pause()

    # When it is taken in, then its request is answered at once, and the session waits
    assert proceed(transfer) == transfer_statuses.STARTED
    run = Run.objects.get()
    worker.wait_until(lambda: state_of(run) == (Run.State.PENDING, True, 0), "held")
    assert is_at(transfer_stages.DESERIALIZING, transfer_statuses.STARTED)
    assert not Unit.objects.exists()

    # When somebody resumes, then it is sent at once, and the worker tells the session
    assert morango_celery.resume() == [run.pk]
    worker.wait_until(
        lambda: is_at(transfer_stages.DESERIALIZING, transfer_statuses.COMPLETED), "telling the session"
    )
    assert session().active
    assert state_of(run) == (Run.State.COMPLETED, False, 0)
