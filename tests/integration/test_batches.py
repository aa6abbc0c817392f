"""Doubled, late and wrong messages of a run, also at the same time."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from functools import partial
from typing import Any

import pytest

from morango_celery import tasks
from morango_celery.errors import FatalError, InvalidMessageError
from morango_celery.models import Batch, Run, hash_of_ids
from morango_celery.runs import opening
from morango_celery.runs.attempts import attempt_batch
from morango_celery.runs.batching import open_batches
from morango_celery.runs.execution import execute_batch
from morango_celery.runs.opening import attempt_opening
from morango_celery.runs.producer import advance, start
from morango_celery.worker import run_steps
from tests.support import factories
from tests.support.concurrency import together
from tests.support.run_helpers import MISSING, deserialized_state, dirty_ids, new_run, unit
from worker.school.models import Unit

pytestmark = [pytest.mark.django_db, pytest.mark.usefixtures("serializable_in_a_transaction")]


class TestBatches:
    def test_executing_a_batch_twice_changes_nothing(self, batch_size: Callable[[int], None]) -> None:
        # Given the first of several batches, done; one of its records is in error
        batch_size(10)
        factories.fill_store(100)
        factories.store_row("unit", name=None, partition="0")
        run = start(new_run().pk).run
        batch, *_ = open_batches(run)
        first = execute_batch(batch.pk, batch.ids_sha256)
        assert first.result is not None
        before = deserialized_state()

        # When its message comes again, or the ledger is asked again
        again = [execute_batch(batch.pk, batch.ids_sha256), execute_batch(batch.pk)]

        # Then nothing happens
        assert [execution.result for execution in again] == [None, None]
        assert deserialized_state() == before

    def test_doubled_message_opens_the_stage_that_its_first_worker_did_not(self) -> None:
        # Given a worker that died between the commit of the last batch and the next stage
        factories.fill_store(10)
        run = start(new_run().pk).run
        (batch,) = open_batches(run)
        assert execute_batch(batch.pk, batch.ids_sha256).stage_is_done

        # When the message comes again
        again = execute_batch(batch.pk, batch.ids_sha256)

        # Then it is this one's turn, until the run has ended
        assert again.stage_is_done
        assert advance(run.pk).ended
        assert not execute_batch(batch.pk, batch.ids_sha256).stage_is_done

    @pytest.mark.parametrize(
        "change",
        [
            lambda ids: ids[:-1],
            lambda ids: [*ids, MISSING],
            lambda ids: ids[::-1],
            lambda ids: [],
            lambda ids: list(range(len(ids))),
            lambda ids: [{"id": store_id} for store_id in ids],
        ],
        ids=["one less", "one more", "another order", "none", "numbers", "objects"],
    )
    def test_ids_that_are_not_the_batchs_are_refused(self, change: Callable[[list[str]], Any]) -> None:
        factories.fill_store(10)
        (batch,) = open_batches(start(new_run().pk).run)
        before = deserialized_state()

        with pytest.raises(InvalidMessageError, match=r"ids are not those of batch 1/1 .*recover_runs"):
            execute_batch(batch.pk, hash_of_ids(change(batch.store_ids)))

        assert deserialized_state() == before

    def test_ids_of_another_runs_batch_are_refused(self) -> None:
        unit()
        (one,) = open_batches(start(new_run().pk).run)
        unit()
        (other,) = open_batches(start(new_run().pk).run)
        before = deserialized_state()

        for call in (execute_batch, attempt_batch, tasks.deserialize_batch):
            with pytest.raises(InvalidMessageError):
                call(one.pk, other.ids_sha256)

        assert deserialized_state() == before

    def test_message_of_a_deleted_run_does_nothing(self) -> None:
        factories.fill_store(10)
        run = start(new_run().pk).run
        (batch,) = open_batches(run)
        Run.objects.all().delete()

        execution = execute_batch(batch.pk, batch.ids_sha256)

        assert (execution.run_id, execution.result, execution.stage_is_done) == (None, None, False)
        assert tasks.deserialize_batch(batch.pk, batch.ids_sha256) == {}
        assert tasks.start_run(run.pk) == f"Run {run.pk} is not in the ledger: it was deleted."
        assert tasks.notify_session(run.pk) is False
        assert len(dirty_ids()) == 10
        with pytest.raises(Run.DoesNotExist):
            advance(run.pk)

    @pytest.mark.parametrize("state", [Run.State.FAILED, Run.State.COMPLETED, Run.State.CANCELLED])
    def test_message_of_a_run_that_has_ended_does_nothing(self, state: Run.State) -> None:
        factories.fill_store(10)
        run = start(new_run().pk).run
        (batch,) = open_batches(run)
        run.move_to(state, error="by hand")
        before = deserialized_state()

        execution = execute_batch(batch.pk, batch.ids_sha256)
        progress = [start(run.pk), advance(run.pk)]

        assert (execution.result, execution.stage_is_done) == (None, False)
        assert not any(p.opened or p.ended for p in progress)
        assert deserialized_state() == before

    def test_starting_a_run_twice_opens_one_stage(self) -> None:
        factories.fill_store(10)
        run = new_run()

        progress = [start(run.pk), start(run.pk), advance(run.pk)]

        assert [p.opened for p in progress] == [True, False, False]
        assert Batch.objects.count() == 1

    @pytest.mark.parametrize(
        ("state", "target"),
        [
            (Run.State.PENDING, Run.State.COMPLETED),
            (Run.State.RUNNING, Run.State.PENDING),
            (Run.State.COMPLETED, Run.State.RUNNING),
            (Run.State.COMPLETED, Run.State.FAILED),
            (Run.State.FAILED, Run.State.RUNNING),
            (Run.State.CANCELLED, Run.State.RUNNING),
            (Run.State.COMPLETED, Run.State.CANCELLED),
        ],
    )
    def test_run_makes_no_move_that_the_ledger_does_not_know(
        self, state: Run.State, target: Run.State
    ) -> None:
        run = new_run(state=state)

        with pytest.raises(
            FatalError, match=f"Run {run.pk} is {state.value}; it can't become {target.value}"
        ):
            run.move_to(target)

        run.refresh_from_db()
        assert run.state == state


@pytest.mark.django_db(transaction=True)
class TestAtTheSameTime:
    """Workers as threads, each with a connection of its own."""

    THREADS = 6

    def test_exactly_one_batch_opens_the_next_stage(self, batch_size: Callable[[int], None]) -> None:
        # Given stages of several batches
        batch_size(20)
        sent = factories.fill_store(240)
        progress = start(new_run().pk)

        def work(batch: Batch) -> bool:
            execution = execute_batch(batch.pk, batch.ids_sha256)
            return execution.stage_is_done and advance(batch.run_id).opened

        # When each stage's batches are worked off at the same time, by whoever opens the next one
        openers = []
        while batches := list(open_batches(progress.run)):
            openers.append(sum(together([partial(work, batch) for batch in batches])))

        # Then each stage but the last was followed by one, opened once
        run = Run.objects.get()
        assert (run.state, run.stage, run.open_batches) == (Run.State.COMPLETED, len(openers), 0)
        assert openers == [1] * (len(openers) - 1) + [0]
        assert len(openers) > 2
        assert (run.saved, run.records) == (240, 240)
        assert {name: len(rows) for name, rows in factories.app_rows().items()} == sent

    def test_batch_of_a_run_deleted_meanwhile_is_completed(
        self, monkeypatch: pytest.MonkeyPatch, batch_size: Callable[[int], None]
    ) -> None:
        # Given the first of two batches, in the middle of which its run is deleted
        batch_size(1)
        first = unit()
        second = unit(first)
        run = start(new_run().pk).run
        (batch,) = open_batches(run)
        at_it = threading.Event()

        def save(*args: Any, **kwargs: Any) -> None:
            at_it.set()
            time.sleep(0.2)

        def delete() -> None:
            assert at_it.wait(20)
            Run.objects.get().delete()

        monkeypatch.setattr(Unit, "clean_fields", save)
        advanced = threading.Event()

        def advance_late(run_id: int, open_stage: Callable[[Run], Any], *message: Any) -> Any:
            until_gone = time.monotonic() + 20
            while Run.objects.exists():
                assert time.monotonic() < until_gone
            advanced.set()
            return attempt_opening(run_id, open_stage, *message)

        monkeypatch.setattr(run_steps, "attempt_opening", advance_late)
        result, _ = together([lambda: tasks.deserialize_batch(batch.pk, batch.ids_sha256), delete])

        # Then the batch is completed, and the run isn't missed
        assert (result, advanced.is_set(), dirty_ids()) == ({}, True, {second.id})

    def test_only_one_of_many_callers_advances_a_run(self, batch_size: Callable[[int], None]) -> None:
        batch_size(20)
        factories.fill_store(60)
        run = new_run()

        opened = together([lambda: start(run.pk).opened] * self.THREADS)
        for batch in open_batches(run):
            execute_batch(batch.pk)
        opened_again = together([lambda: advance(run.pk).opened] * self.THREADS)

        assert sorted(opened) == sorted(opened_again) == [False] * (self.THREADS - 1) + [True]

    def test_stage_that_is_done_while_its_opening_comes_again_fails_no_run(
        self, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        # Given a message that finds a stage open, whose last batch is done right after that
        factories.fill_store(60)
        run = start(new_run().pk).run
        (batch,) = open_batches(run)
        begin = opening._begin

        def finds_it_open(run_id: int) -> Any:
            begun = begin(run_id)
            execute_batch(batch.pk)
            return begun

        with monkeypatch.context() as patch:
            patch.setattr(opening, "_begin", finds_it_open)
            progress = attempt_opening(run.pk, lambda run: start(run.pk))

        # Then it does nothing, and who has done the batch goes on
        assert (progress.run.state, progress.opened, progress.ended) == (Run.State.RUNNING, False, False)
        assert attempt_opening(run.pk, lambda run: advance(run.pk)).run.state == Run.State.COMPLETED

    def test_message_that_comes_twice_at_once_is_executed_once(self) -> None:
        factories.fill_store(60)
        (batch,) = open_batches(start(new_run().pk).run)

        done = together([lambda: execute_batch(batch.pk, batch.ids_sha256)] * self.THREADS)

        assert len([execution for execution in done if execution.result is not None]) == 1
        run = Run.objects.get()
        assert (run.saved, run.open_batches) == (60, 0)
