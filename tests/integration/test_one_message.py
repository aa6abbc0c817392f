"""Runs that fit one batch: planned, carried out and completed by the message that starts them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from django.db import OperationalError
from redis import Redis

from morango_celery import tasks
from morango_celery.errors import SoftTimeLimitReached
from morango_celery.models import Batch, Run
from morango_celery.runs import attempts, control, opening, producer
from morango_celery.runs.execution import execute_batch
from morango_celery.runs.message import Message
from morango_celery.runs.opening import attempt_start
from morango_celery.runs.producer import Progress, advance
from morango_celery.runs.recovery import recover
from morango_celery.signals import run_finished
from tests.support import factories
from tests.support.queues import lengths
from tests.support.run_helpers import MISSING, RecordingDispatcher, ago, dirty_ids, new_run, unit
from worker.school.models import Unit

pytestmark = pytest.mark.django_db

FIRST = Message("run-1")
AGAIN = Message("run-1", is_redelivered=True)
OTHER_MESSAGE = Message("run-1")


@pytest.fixture
def run() -> Run:
    """Return a pending run with two records."""
    unit(unit())
    return new_run()


@pytest.fixture
def killed(run: Run, monkeypatch: pytest.MonkeyPatch) -> Batch:
    """Return the batch of a run whose worker was killed after the attempt had begun, before its execution."""

    class KilledError(Exception):
        """Stands for a signal: nothing in the code under test handles it."""

    def die(*args: Any, **options: Any) -> None:
        raise KilledError

    with monkeypatch.context() as patch:
        patch.setattr(attempts, "attempt_begun", die)
        with pytest.raises(KilledError):
            attempt_start(run.pk, FIRST)
    return run.batches.get()


def ledger_of(run: Run) -> tuple[Any, ...]:
    run.refresh_from_db()
    return (run.state, run.open_batches, run.finalized)


COMPLETED = (Run.State.COMPLETED, 0, True)


class TestHappyPath:
    def test_small_run_completes_with_its_first_message(self, run: Run, redis_url: str) -> None:
        assert tasks.start_run(run.pk) == "completed: 2 records, 2 saved"

        with Redis.from_url(redis_url) as client:
            assert lengths(client) == {}
        batch = run.batches.get()
        assert ledger_of(run) == COMPLETED
        assert (batch.state, batch.attempts, batch.ids_json) == (Batch.State.DONE, 1, "")
        assert (run.attempts, run.saved, Unit.objects.count(), dirty_ids()) == (0, 2, 2, set())

    def test_attempt_is_in_the_ledger_before_it_is_made(
        self, run: Run, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        real = execute_batch
        seen: list[tuple[int, str]] = []

        def watched(batch_id: int, *args: Any, **options: Any) -> Any:
            batch = Batch.objects.get(pk=batch_id)
            seen.append((batch.attempts, batch.attempted_by))
            return real(batch_id, *args, **options)

        monkeypatch.setattr(attempts, "execute_batch", watched)
        attempt_start(run.pk, FIRST)

        assert seen == [(1, "run-1")]

    def test_receiver_hears_of_its_end_after_the_commit(self, run: Run) -> None:
        heard: list[tuple[str, bool]] = []

        def receive(run: Run, **kwargs: Any) -> None:
            heard.append(Run.objects.values_list("state", "finalized").get(pk=run.pk))

        run_finished.connect(receive)
        try:
            tasks.start_run(run.pk)
        finally:
            run_finished.disconnect(receive)

        assert heard == [(Run.State.COMPLETED, False)]
        assert ledger_of(run) == COMPLETED

    def test_run_without_records_completes_with_its_first_message(self) -> None:
        run = new_run()
        assert "(completed)" in tasks.start_run(run.pk)
        assert (ledger_of(run), run.batches.count()) == (COMPLETED, 0)


class TestOrdinaryWay:
    """Messages of a run that takes more than one batch."""

    def test_two_batches_are_sent(self, run: Run, batch_size: Callable[[int], None]) -> None:
        batch_size(1)

        progress, execution = attempt_start(run.pk, FIRST)

        assert (progress.opened, progress.begun, execution) == (True, None, None)
        assert set(Batch.objects.values_list("attempts", "attempted_by")) == {(0, "")}

    def test_after_a_slow_start_the_batch_is_sent(self, run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(producer, "QUICK_SECONDS", 0.0)

        progress, execution = attempt_start(run.pk, FIRST)

        assert (progress.opened, progress.begun, execution) == (True, None, None)
        assert run.batches.get().attempts == 0

    def test_second_pass_is_sent_as_a_message(self, redis_url: str) -> None:
        factories.store_row("learner", unit=unit(), school_id=MISSING)  # refused by save()
        run = new_run()

        assert tasks.start_run(run.pk) == "running: 2 of 2 records so far, 1 saved, 1 failed"

        assert run.batches.count() == 2
        assert ledger_of(run) == (Run.State.RUNNING, 1, False)
        with Redis.from_url(redis_url) as client:
            assert lengths(client) == {0: 1}

    def test_batch_that_takes_too_long_is_split_by_its_message(
        self, run: Run, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        def clean_fields(*args: Any, **kwargs: Any) -> None:
            raise SoftTimeLimitReached

        monkeypatch.setattr(Unit, "cached_clean_fields", clean_fields)

        _, execution = attempt_start(run.pk, FIRST)

        batch = run.batches.get()
        assert execution is not None
        assert execution.batches_to_send == (batch.pk,)
        assert (batch.suspect, batch.attempts, batch.attempted_by) == (True, 1, "")


class TestLostWorkers:
    def test_message_that_comes_again_goes_on(self, run: Run, killed: Batch) -> None:
        # Given a batch that is begun, and held by nobody
        assert (killed.attempts, killed.attempted_by, killed.sent_at) == (1, "run-1", None)

        # When the broker delivers the run's message again
        _, execution = attempt_start(run.pk, AGAIN)

        # Then that is the second attempt, and the run is at its end
        assert execution is not None
        assert execution.ended
        assert ledger_of(run) == COMPLETED
        assert run.batches.get().attempts == 2

    def test_record_that_kills_is_found_in_as_many_attempts(self, run: Run, killed: Batch) -> None:
        Batch.objects.update(attempts=3)

        _, execution = attempt_start(run.pk, AGAIN)

        assert execution is not None
        assert Batch.objects.get(pk=killed.pk).state == Batch.State.SPLIT
        first = run.batches.filter(state=Batch.State.OPEN).order_by("pk").first()
        assert first is not None
        assert execution.batches_to_send == (first.pk,)

    def test_message_that_comes_twice_leaves_what_is_begun_alone(self, run: Run, killed: Batch) -> None:
        progress, execution = attempt_start(run.pk, OTHER_MESSAGE)

        assert (progress.opened, progress.ended, execution) == (False, False, None)
        killed.refresh_from_db()
        assert (killed.state, killed.attempts) == (Batch.State.OPEN, 1)

    @pytest.mark.usefixtures("killed")
    def test_message_that_recovery_has_sent_is_left_to_that(self, run: Run) -> None:
        Batch.objects.update(sent_at=ago(1))

        assert attempt_start(run.pk, AGAIN)[1] is None

        assert ledger_of(run) == (Run.State.RUNNING, 1, False)

    def test_recovery_sends_the_batch_of_a_killed_worker(self, killed: Batch) -> None:
        Batch.objects.update(overdue_at=ago(1))
        dispatch = RecordingDispatcher()

        assert recover(dispatch) == 1

        assert set(dispatch.sent) == {f"batch {killed.pk}"}

    @pytest.mark.usefixtures("killed")
    def test_stop_request_is_no_attempt(self, run: Run) -> None:
        opening.uncount_start_after_signal(run.pk, FIRST)

        batch = run.batches.get()
        assert (batch.attempts, batch.attempted_by, batch.overdue_at) == (0, "", None)

    def test_outage_is_no_attempt_and_its_message_goes_on(
        self, run: Run, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        # Given a database that asks to try again in the middle of the batch
        class DeadlockError(OperationalError):
            pgcode = sqlstate = "40P01"

        def execute(*args: Any, **options: Any) -> None:
            raise DeadlockError from DeadlockError()

        with monkeypatch.context() as patch:
            patch.setattr(attempts, "execute_batch", execute)
            with pytest.raises(DeadlockError):
                attempt_start(run.pk, FIRST)
        assert run.batches.get().attempts == 0
        opening.expect_retry(run.pk, FIRST, 60)
        assert run.batches.filter(overdue_at__gt=ago(-60)).exists()

        # When the message tries again
        attempt_start(run.pk, Message("run-1", retries=1))

        # Then that is the first attempt
        assert ledger_of(run) == COMPLETED
        assert run.batches.get().attempts == 1


class TestMeanwhile:
    @pytest.fixture
    def between(self, monkeypatch: pytest.MonkeyPatch) -> Callable[[Callable[[], Any]], None]:
        """Have something happen after a run's batch is begun, and before it is executed."""
        real = attempts.attempt_begun

        def arrange(deed: Callable[[], Any]) -> None:
            def late(*args: Any, **options: Any) -> Any:
                deed()
                return real(*args, **options)

            monkeypatch.setattr(attempts, "attempt_begun", late)

        return arrange

    def test_run_that_is_cancelled_does_nothing(
        self, run: Run, between: Callable[[Callable[[], Any]], None]
    ) -> None:
        between(lambda: control.cancel(run.pk))

        assert tasks.start_run(run.pk).startswith("cancelled: ")

        assert ledger_of(run)[0] == Run.State.CANCELLED
        assert (len(dirty_ids()), run.batches.get().ids_json) == (2, "")

    def test_run_that_is_deleted_is_not_missed(
        self, run: Run, between: Callable[[Callable[[], Any]], None]
    ) -> None:
        between(lambda: Run.objects.all().delete())

        tasks.start_run(run.pk)

        assert len(dirty_ids()) == 2

    def test_batch_begun_by_another_message_is_left_to_it(
        self, run: Run, between: Callable[[Callable[[], Any]], None]
    ) -> None:
        between(lambda: Batch.objects.update(attempted_by="another", attempts=2))

        _, execution = attempt_start(run.pk, FIRST)

        assert execution == attempts.NOTHING
        assert (len(dirty_ids()), run.batches.get().attempts) == (2, 2)

    def test_run_that_is_cancelled_in_the_middle_of_its_batch_stays_cancelled(
        self, run: Run, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        real = Unit.cached_clean_fields

        def cancelling(self: Unit, *args: Any, **options: Any) -> Any:
            Run.objects.filter(pk=run.pk).update(state=Run.State.CANCELLED)
            return real(self, *args, **options)

        monkeypatch.setattr(Unit, "cached_clean_fields", cancelling)

        _, execution = attempt_start(run.pk, FIRST)

        assert execution is not None
        assert (execution.ended, execution.stage_is_done) == (False, True)
        run.refresh_from_db()
        assert (run.state, run.saved, dirty_ids()) == (Run.State.CANCELLED, 2, set())
        assert advance(run.pk) == Progress(run)
