"""Runs that somebody ends, and runs that are done again."""

from __future__ import annotations

import time
from collections.abc import Callable
from functools import partial
from io import StringIO
from typing import Any

import pytest
from django.core.management import CommandError, call_command
from morango.constants import transfer_stages, transfer_statuses
from morango.models import Store
from morango.models.certificates import Filter

import morango_celery
from morango_celery import tasks
from morango_celery.api import wait_for
from morango_celery.errors import RunFailedError, UsageError
from morango_celery.models import Batch, Run
from morango_celery.runs import control
from morango_celery.runs.attempts import attempt_batch
from morango_celery.runs.batching import open_batches
from morango_celery.runs.execution import execute_batch
from morango_celery.runs.inprocess import run_in_process
from morango_celery.runs.producer import advance, create_run, start
from morango_celery.signals import run_finished
from tests.support import factories
from tests.support.concurrency import together
from tests.support.run_helpers import (
    carry_out,
    deserialized_state,
    dirty_ids,
    edited_unit,
    learners_in_order,
    new_run,
    rename,
    unit,
    waiting_session,
)
from tests.support.workers import StartWorker
from worker.school.models import PROFILE, Unit

pytestmark = [pytest.mark.django_db, pytest.mark.usefixtures("serializable_in_a_transaction")]


class TestCancel:
    def test_messages_for_a_cancelled_run_do_nothing(self, batch_size: Callable[[int], None]) -> None:
        # Given a run with two open batches, one of them done
        batch_size(1)
        unit()
        unit()
        run = start(new_run().pk).run
        done, open_ = open_batches(run)
        execute_batch(done.pk)

        # When it is cancelled, by two at the same time
        cancelled = [morango_celery.cancel(run.pk), morango_celery.cancel(run.pk)]

        # Then messages for it have no effect, and what was not done waits
        before = deserialized_state()
        assert attempt_batch(open_.pk, open_.ids_sha256).result is None
        assert tasks.deserialize_batch(open_.pk, open_.ids_sha256) == {}
        assert tasks.start_run(run.pk)
        assert not advance(run.pk).opened
        assert deserialized_state() == before
        assert {(one.state, one.error) for one in cancelled} == {(Run.State.CANCELLED, "It was cancelled.")}
        assert cancelled[0].finished_at is not None
        assert Unit.objects.count() == len(dirty_ids()) == 1
        assert morango_celery.recover_runs(all_unfinished=True) == 0

        # ... for the next run
        again, _ = carry_out()
        assert (again.saved, dirty_ids()) == (1, set())

    def test_cancelled_pending_run_opens_no_stage(self) -> None:
        unit()
        run = new_run()

        control.cancel(run.pk)
        progress = start(run.pk)

        assert (progress.opened, progress.ended, progress.run.state) == (False, False, Run.State.CANCELLED)
        assert len(dirty_ids()) == 1

    @pytest.mark.parametrize("state", [Run.State.COMPLETED, Run.State.FAILED])
    def test_ended_or_unknown_run_cannot_be_cancelled(self, state: Run.State) -> None:
        run = new_run(state=state)

        with pytest.raises(UsageError, match=f"Run {run.pk} is {state.value} already"):
            morango_celery.cancel(run.pk)
        with pytest.raises(UsageError, match=f"The ledger has no run {run.pk + 1}"):
            morango_celery.cancel(run.pk + 1)

    @pytest.mark.django_db(transaction=True)
    def test_cancelling_notifies_session_receivers_and_waiting_callers(self) -> None:
        # Given a run that a transfer session waits for
        session = waiting_session(transfer_statuses.STARTED)
        run = new_run(transfer_session_id=session.id, session_notified=False)
        heard: list[Run] = []

        def receive(run: Run, **kwargs: Any) -> None:
            heard.append(run)

        run_finished.connect(receive)
        try:
            morango_celery.cancel(run.pk)
        finally:
            run_finished.disconnect(receive)

        session.refresh_from_db()
        run.refresh_from_db()
        assert session.transfer_stage == transfer_stages.DESERIALIZING
        assert session.transfer_stage_status == transfer_statuses.ERRORED
        assert (run.finalized, heard) == (True, [run])
        with pytest.raises(RunFailedError, match=f"Run {run.pk} was cancelled"):
            wait_for(run)

    def test_run_in_process_stops_when_cancelled(self, batch_size: Callable[[int], None]) -> None:
        batch_size(1)
        unit()
        unit()

        def cancel(run: Run) -> None:
            control.cancel(run.pk)

        with pytest.raises(RunFailedError, match=r"ended from elsewhere .* It was cancelled"):
            run_in_process(new_run(in_process=True), cancel)

        assert (Run.objects.get().state, len(dirty_ids())) == (Run.State.CANCELLED, 1)


@pytest.mark.needs_postgresql
@pytest.mark.django_db(transaction=True)
class TestAtTheSameTime:
    @pytest.mark.parametrize("pause_seconds", [0, 0.005, 0.02, 0.05])
    def test_cancelling_beside_batches_loses_no_record(
        self, batch_size: Callable[[int], None], pause_seconds: float
    ) -> None:
        # Given a run of several batches a stage
        batch_size(30)
        factories.fill_store(240)
        run = start(new_run().pk).run

        def work(batch: Batch) -> None:
            if attempt_batch(batch.pk, batch.ids_sha256).stage_is_done:
                advance(run.pk)

        def cancel() -> None:
            time.sleep(pause_seconds)
            if not Run.objects.get(pk=run.pk).has_ended:
                control.cancel(run.pk)

        # When it is cancelled among them
        batches = list(open_batches(run))
        while batches and run.state == Run.State.RUNNING:
            together([cancel, *(partial(work, batch) for batch in batches)])
            run.refresh_from_db()
            batches = list(open_batches(run))

        # Then each batch is done and counted, or untouched
        assert (run.state, run.error) == (Run.State.CANCELLED, "It was cancelled.")
        assert run.saved + len(dirty_ids()) == 240
        assert run.saved == sum(Batch.objects.values_list("saved", flat=True))
        assert run.saved == sum(len(rows) for rows in factories.app_rows().values())
        assert run.open_batches == Batch.objects.filter(state=Batch.State.OPEN).count()

        # ... and the next run does the rest
        again, _ = carry_out()
        assert (again.saved, dirty_ids()) == (240 - run.saved, set())

    def test_run_is_cancelled_once_by_many_callers(self) -> None:
        run = new_run()

        cancelled = together([lambda: control.cancel(run.pk)] * 5)

        assert {one.finished_at for one in cancelled} == {Run.objects.get().finished_at}


class TestRetry:
    def test_retry_has_the_options_of_the_first_run(self) -> None:
        row = unit(school_id="ab" * 16)
        unit()
        first = create_run(PROFILE, Filter("ab" * 16), skip_erroring=True, in_process=True)
        first.move_to(Run.State.FAILED, error="out of order")

        again = morango_celery.retry(first.pk)

        assert again.retry_of == first
        assert (again.profile, again.filter, again.skip_erroring) == (PROFILE, "ab" * 16, True)
        assert (again.in_process, again.serialize_first, again.retry_errors) == (True, True, False)
        assert (again.state, again.saved) == (Run.State.COMPLETED, 1)
        assert Unit.objects.get().id == row.id

    @pytest.mark.parametrize("state", [Run.State.PENDING, Run.State.RUNNING])
    def test_unfinished_or_unknown_run_cannot_be_retried(self, state: Run.State) -> None:
        run = new_run(state=state)

        with pytest.raises(UsageError, match=f"Run {run.pk} is {state.value}.* cancel it first"):
            morango_celery.retry(run.pk)
        with pytest.raises(UsageError, match="The ledger has no run"):
            morango_celery.retry(run.pk + 1)
        assert Run.objects.count() == 1

    @pytest.mark.needs_postgresql
    @pytest.mark.django_db(transaction=True)
    def test_retry_is_carried_out_by_workers(self, celery_worker_process: StartWorker) -> None:
        # Given a run that was cancelled before any worker was there
        factories.fill_store(50)
        run = new_run()
        morango_celery.cancel(run.pk)
        celery_worker_process(concurrency=1)

        again = morango_celery.retry(run.pk, wait=60)

        assert (again.state, again.saved, again.in_process) == (Run.State.COMPLETED, 50, False)


class TestCommands:
    def test_commands_cancel_and_retry_a_run(self, batch_size: Callable[[int], None]) -> None:
        batch_size(1)
        unit()
        unit()
        run = start(new_run(in_process=True).pk).run
        out = StringIO()

        call_command("cancel_run", str(run.pk), stdout=out)
        call_command("retry_run", str(run.pk), stdout=out)

        first, second = out.getvalue().splitlines()
        assert first == f"Run {run.pk} is cancelled; 0 of 2 records that were handed out are done."
        assert second.startswith(f"Run {run.pk + 1}: 2 records in ")

    def test_impossible_commands_are_refused(self) -> None:
        run = new_run()
        with pytest.raises(CommandError, match="cancel it first"):
            call_command("retry_run", str(run.pk))
        with pytest.raises(CommandError, match="The ledger has no run"):
            call_command("cancel_run", str(run.pk + 1))


class TestRetryErrors:
    IN_ERROR = {"deserialization_error": "It was bad.", "deserialization_exception": "some.Error"}

    def retry_errors(self, **options: Any) -> Run:
        return morango_celery.deserialize(PROFILE, retry_errors=True, in_process=True, **options)

    def carry_out(self) -> Run:
        return carry_out(new_run(retry_errors=True))[0]

    def test_only_records_in_error_are_tried(self, batch_size: Callable[[int], None]) -> None:
        # Given one record that would do by now, one that is still bad, and one that nobody has tried
        batch_size(1)
        good = unit(columns=self.IN_ERROR)
        bad = unit(name=None, columns=self.IN_ERROR)
        waiting = unit()

        run = self.carry_out()

        # Then the first two were tried, whatever run they failed in
        assert (run.records, run.saved, run.failed) == (2, 1, 1)
        assert [row.id for row in Unit.objects.all()] == [good.id]
        assert dirty_ids() == {bad.id, waiting.id}
        bad.refresh_from_db()
        waiting.refresh_from_db()
        assert bad.deserialization_exception == "django.core.exceptions.ValidationError"
        assert waiting.deserialization_error is None

    def test_retrying_errors_takes_as_many_passes_as_get_further(
        self, batch_size: Callable[[int], None]
    ) -> None:
        # Given that each learner takes the next one's name, and one that conflicts with a local edit
        batch_size(1)
        pairs = learners_in_order(4)
        for number, (row, _) in enumerate(pairs):
            rename(row, f"name-{number + 1}")
        edited = unit()
        edited_unit(edited, "made here")
        Store.objects.filter(dirty_bit=True).update(**self.IN_ERROR)

        run = self.carry_out()

        # Then it takes several passes, in which nothing else is touched, and each record counts once
        assert (run.pass_number, run.records, run.done) == (4, 5, 5)
        assert (run.saved, run.conflicted, run.failed) == (4, 1, 0)
        assert dirty_ids() == {edited.id}

    def test_record_below_one_that_is_not_retried_fails_again(self) -> None:
        parent = unit()
        child = unit(parent, columns=self.IN_ERROR)

        run = self.carry_out()

        assert (run.records, run.failed) == (1, 1)
        assert dirty_ids() == {parent.id, child.id}

    def test_run_that_is_cancelled_loses_no_record(self) -> None:
        # Given a run that has marked what it is to retry, and is cancelled then
        row = unit(columns=self.IN_ERROR)
        unit()
        control.cancel(start(new_run(retry_errors=True).pk).run.pk)
        assert dirty_ids() >= {row.id}

        # When errors are retried again, then it is among them
        run = self.carry_out()
        assert (run.records, run.saved) == (1, 1)

        # ... as it is for a run that takes everything
        Store.objects.filter(pk=row.pk).update(dirty_bit=True, **self.IN_ERROR)
        control.cancel(start(new_run(retry_errors=True).pk).run.pk)
        everything_dirty, _ = carry_out()
        assert everything_dirty.records == 2

    def test_retrying_and_skipping_errors_exclude_each_other(self) -> None:
        with pytest.raises(UsageError, match="can't both"):
            self.retry_errors(skip_erroring=True)
        arguments = ("deserialize", "--profile", "school", "--retry-errors", "--skip-erroring")
        with pytest.raises(CommandError, match="not allowed with"):
            call_command(*arguments)

    def test_command_retries_records_in_error_only(self) -> None:
        unit(columns=self.IN_ERROR)
        unit()
        out = StringIO()

        call_command("deserialize", "--profile", "school", "--retry-errors", "--in-process", stdout=out)

        assert ": 1 record in " in out.getvalue()
        assert len(dirty_ids()) == 1
