"""Workers are stopped as containers are: SIGTERM, a time of grace, and another one takes over."""

from __future__ import annotations

import os
import signal
import time
from contextlib import ExitStack
from functools import partial

import pytest
from morango.models import Store

from morango_celery.models import Batch, Run
from morango_celery.tasks import CeleryDispatch
from tests import factories
from tests.conftest import StartWorker
from tests.faults.schools import School
from tests.processes import LoggedProcess
from tests.waiting import child_that_waits_for_a_lock, held, until

pytestmark = [pytest.mark.django_db(transaction=True), pytest.mark.needs_postgresql]

GRACE_SECONDS = 5
"""What a running batch gets; the supervisor waits for longer."""

PATIENCE_SECONDS = 20
"""When a supervisor kills what is still there."""

GRACE = {"WORKER_SOFT_SHUTDOWN_SECONDS": str(GRACE_SECONDS)}
SIZE = {"MORANGO_CELERY_BATCH_SIZE_RECORDS": "100"}
INTERRUPTED = {"DJANGO_SETTINGS_MODULE": "tests.faults.interrupted_settings"}

REPLACED_IN = ("unit", "learner", "attempt")
"""Models of which each is a stage of its own, in this order."""


def root_unit(school: School) -> str:
    found: str = next(row["id"] for row in school.expected.app["unit"] if row["parent_id"] is None)
    return found


def wait_for(run: Run) -> None:
    until(lambda: Run.objects.get(pk=run.pk).followed_up, "done", 60)


def ask_to_stop(worker: LoggedProcess) -> float:
    os.kill(worker.pid, signal.SIGTERM)
    worker.wait_for_log("Initiating Soft Shutdown")
    return time.monotonic()


@pytest.mark.at_length
def test_a_batch_that_ends_in_time_is_finished(school: School, celery_worker_process: StartWorker) -> None:
    # Given a worker in the middle of a batch
    worker = celery_worker_process(1, **GRACE, **SIZE)
    run = school.new_run()
    with held(root_unit(school)):
        assert CeleryDispatch().start(run)
        until(lambda: child_that_waits_for_a_lock(worker.pid), "in the middle of a batch")

        # When it is asked to stop, and the batch can go on in time
        asked = ask_to_stop(worker)
    worker.wait_until_ended()

    # Then it finishes the batch, and is gone soon after the time of grace
    assert time.monotonic() - asked < PATIENCE_SECONDS
    assert run.batches.earliest("pk").state == Batch.State.DONE

    # ... and another one goes on
    celery_worker_process(1, **SIZE)
    wait_for(run)
    school.assert_intact(run)
    assert set(run.batches.values_list("attempts", flat=True)) == {1}


def test_a_batch_that_does_not_end_in_time_goes_back(
    school: School, celery_worker_process: StartWorker
) -> None:
    # Given a worker with a batch that will take for ever in it, but would not elsewhere
    factories.store_row("learner", unit_id=root_unit(school), school_id=school.id, username="sleeps")
    school.expected = school.undisturbed()
    worker = celery_worker_process(1, DJANGO_SETTINGS_MODULE="tests.dangerous.settings", **GRACE, **SIZE)
    run = school.new_run()
    assert CeleryDispatch().start(run)
    in_hand = until(lambda: run.batches.filter(state="open", attempts=1).first(), "in the middle of a batch")

    # When the worker is asked to stop
    asked = ask_to_stop(worker)
    worker.wait_until_ended()

    # Then it is gone soon after the time of grace, and another one takes the batch at once
    assert time.monotonic() - asked < PATIENCE_SECONDS
    assert "Restoring 1 unacknowledged message" in worker.log()
    celery_worker_process(1, **SIZE)
    wait_for(run)
    school.assert_intact(run)
    in_hand.refresh_from_db()
    assert in_hand.state == Batch.State.DONE

    # ... and being given back is no attempt
    assert set(run.batches.values_list("attempts", flat=True)) == {1}


@pytest.mark.at_length
def test_batch_that_the_database_holds_up_is_given_back_when_it_has_waited_long_enough(
    school: School, celery_worker_process: StartWorker
) -> None:
    # Given a batch that waits for a lock in the database, where no signal but SIGKILL reaches it
    worker = celery_worker_process(1, **GRACE, **SIZE)
    run = school.new_run()
    with held(root_unit(school)):
        assert CeleryDispatch().start(run)
        until(lambda: child_that_waits_for_a_lock(worker.pid), "in the middle of a batch")

        # When its worker is asked to stop, then it ends before its supervisor loses patience
        ask_to_stop(worker)
        worker.wait_until_ended(PATIENCE_SECONDS)

    # ... and the next one goes on, without taking the batch for one that ends its workers
    celery_worker_process(1, **SIZE)
    wait_for(run)
    school.assert_intact(run)
    assert set(run.batches.values_list("attempts", flat=True)) == {1}


@pytest.mark.parametrize("moment", ["writing", pytest.param("reading", marks=pytest.mark.at_length)])
def test_a_worker_is_stopped_while_it_talks_to_a_process_of_its_pool(
    school: School, celery_worker_process: StartWorker, moment: str
) -> None:
    # Given a run, and a worker that is asked to stop in the middle of a message to its process, or from it
    run = school.new_run()
    assert CeleryDispatch().start(run)
    worker = celery_worker_process(1, **INTERRUPTED, INTERRUPTED=moment, **SIZE)

    # Then it ends all the same, in time
    worker.wait_until_ended(PATIENCE_SECONDS)

    # ... and another one goes on
    celery_worker_process(1, **SIZE)
    wait_for(run)
    school.assert_intact(run)


@pytest.mark.at_length
def test_a_batch_goes_back_whose_beginning_was_not_heard_of(
    school: School, celery_worker_process: StartWorker
) -> None:
    # Given a batch that takes for ever, and a worker that is asked to stop when it has just handed that over
    factories.store_row("learner", unit_id=root_unit(school), school_id=school.id, username="sleeps")
    school.expected = school.undisturbed()
    run = school.new_run()
    assert CeleryDispatch().start(run)
    worker = celery_worker_process(1, **INTERRUPTED, INTERRUPTED="unheard", **GRACE)

    # Then the batch has its time of grace, and goes back
    worker.wait_until_ended(PATIENCE_SECONDS)
    assert "Initiating Soft Shutdown" in worker.log()
    assert "Restoring 1 unacknowledged message" in worker.log()

    # ... to another one, which takes it at once
    celery_worker_process(1)
    wait_for(run)
    school.assert_intact(run)
    assert set(run.batches.values_list("attempts", flat=True)) == {1}


@pytest.mark.at_length
def test_workers_are_replaced_again_and_again(school: School, celery_worker_process: StartWorker) -> None:
    # Given a run of many batches, which gets past each of three stages only when it is let
    size = {"MORANGO_CELERY_BATCH_SIZE_RECORDS": "1"}
    with ExitStack() as stack:
        holding = [stack.enter_context(ExitStack()) for _ in REPLACED_IN]
        holders = [
            hold.enter_context(held(first(school, model_name)))
            for hold, model_name in zip(holding, REPLACED_IN, strict=True)
        ]
        worker = celery_worker_process(2, **size)
        run = school.new_run()
        assert CeleryDispatch().start(run)

        # When its workers are replaced in the middle of a batch, new ones first
        for hold, holder in zip(holding, holders, strict=True):
            until(partial(child_that_waits_for_a_lock, worker.pid, holder), "in the middle of a batch")
            successor = celery_worker_process(2, **size)
            ask_to_stop(worker)
            hold.close()
            worker.wait_until_ended()
            worker = successor

    # Then it completes, and nothing was done twice
    wait_for(run)
    school.assert_intact(run)


def first(school: School, model_name: str) -> str:
    """A record of the stage of these."""
    rows = Store.objects.filter(model_name=model_name, partition__startswith=school.id, dirty_bit=True)
    return str(rows.earliest("id").id)
