"""Workers are stopped as containers are: SIGTERM, a time of grace, and another one takes over."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from functools import partial

import pytest
from morango.models import Store

from morango_celery.messaging.dispatch import CeleryDispatch
from morango_celery.models import Batch, Run
from tests.faults.conftest import StartWorkerThere
from tests.faults.outages import sent, wait_for_a_batch
from tests.faults.servers import Server
from tests.support import factories
from tests.support.processes import LoggedProcess
from tests.support.schools import School
from tests.support.waiting import child_that_waits_for_a_lock, held, until
from tests.support.workers import CELERYS, OURS, StartWorker

pytestmark = [pytest.mark.django_db(transaction=True), pytest.mark.needs_postgresql]

SHORT = {"WORKER_SOFT_SHUTDOWN_SECONDS": "5"}
"""Time limit of a batch that doesn't end."""

LONG = {"WORKER_SOFT_SHUTDOWN_SECONDS": "600"}
"""Time limit of a batch that ends; no test waits for it."""

PATIENCE_SECONDS = 60
"""Time after which a supervisor kills remaining processes."""

SIZE = {"MORANGO_CELERY_BATCH_SIZE_RECORDS": "100"}
INTERRUPTED = {"DJANGO_SETTINGS_MODULE": "tests.faults.interrupted_settings"}
POISON_APP = {"DJANGO_SETTINGS_MODULE": "tests.poison_app.settings"}

REPLACED_IN = ("unit", "learner", "attempt")
"""Models of which each is a stage of its own, in this order."""

CARRIED_ON, REQUEUED = 0, 1
"""A worker's exit status: whether all that it had begun ended in time."""


def root_unit(school: School) -> str:
    found: str = next(row["id"] for row in school.expected.app["unit"] if row["parent_id"] is None)
    return found


def wait_for(run: Run) -> None:
    until(lambda: Run.objects.get(pk=run.pk).finalized, "done", 60)


def ask_to_stop(worker: LoggedProcess, number: signal.Signals = signal.SIGTERM) -> None:
    os.kill(worker.pid, number)
    worker.wait_for_log(f"Stopping ({number.name})")


def sleeping_batch(school: School) -> Run:
    """Create a run with a learner that takes for ever, but only in a worker with `POISON_APP` settings."""
    factories.store_row("learner", unit_id=root_unit(school), school_id=school.id, username="sleeps")
    school.expected = school.undisturbed()
    run = school.new_run()
    assert CeleryDispatch().start(run)
    return run


def wait_until_begun(run: Run) -> Batch:
    batches = run.batches.filter(state=Batch.State.OPEN, attempts=1)
    found: Batch = until(batches.first, "in the middle of a batch")
    return found


def test_idle_worker_stops_at_once(celery_worker_process: StartWorker) -> None:
    worker = celery_worker_process(2, **LONG)
    ask_to_stop(worker)
    assert worker.wait_until_ended(PATIENCE_SECONDS) == CARRIED_ON


@pytest.mark.parametrize("command", [OURS, pytest.param(CELERYS, marks=pytest.mark.slow)])
def test_worker_ends_right_after_its_last_batch(
    school: School, celery_worker_process: StartWorker, command: Sequence[str]
) -> None:
    # Given a worker in the middle of a batch
    worker = celery_worker_process(2, command=command, REMAP_SIGTERM="SIGQUIT", **LONG, **SIZE)
    run = school.new_run()
    with held(root_unit(school)):
        assert CeleryDispatch().start(run)
        wait_for_a_batch(worker)

        # When it is asked to stop
        ask_to_stop(worker)
        assert worker.is_running

    # Then it is gone when the batch is done, long before its time is up
    assert worker.wait_until_ended(PATIENCE_SECONDS) == CARRIED_ON
    assert run.batches.earliest("pk").state == Batch.State.DONE

    # ... and another one goes on
    celery_worker_process(1, **SIZE)
    wait_for(run)
    school.assert_intact(run)
    assert set(run.batches.values_list("attempts", flat=True)) == {1}


def test_batch_that_does_not_end_in_time_goes_back(
    school: School, celery_worker_process: StartWorker
) -> None:
    # Given a worker with a batch that will take for ever in it, but would not elsewhere
    worker = celery_worker_process(1, **POISON_APP, **SHORT, **SIZE)
    run = sleeping_batch(school)
    in_hand = wait_until_begun(run)

    # When the worker is asked to stop
    ask_to_stop(worker)
    assert worker.wait_until_ended(PATIENCE_SECONDS) == REQUEUED

    # Then another one takes the batch at once
    assert "Restoring 1 unacknowledged message" in worker.log()
    celery_worker_process(1, **SIZE)
    wait_for(run)
    school.assert_intact(run)
    in_hand.refresh_from_db()
    assert in_hand.state == Batch.State.DONE

    # ... and being requeued counts as no attempt
    assert set(run.batches.values_list("attempts", flat=True)) == {1}


def test_batch_that_the_database_holds_up_is_requeued(
    school: School, celery_worker_process: StartWorker
) -> None:
    # Given a batch that waits for a lock in the database, where no signal but SIGKILL reaches it
    worker = celery_worker_process(1, **SHORT, **SIZE)
    run = school.new_run()
    with held(root_unit(school)):
        assert CeleryDispatch().start(run)
        wait_for_a_batch(worker)

        # When its worker is asked to stop
        ask_to_stop(worker)

        # Then the worker kills the process, and is gone before anybody kills itself
        assert worker.wait_until_ended(PATIENCE_SECONDS) == REQUEUED
        assert "is still there, and is killed" in worker.log()
        assert "Restoring 1 unacknowledged message" in worker.log()

    # ... and another one takes the batch at once
    celery_worker_process(1, **SIZE)
    wait_for(run)
    school.assert_intact(run)


def test_second_signal_gives_batches_back_at_once(school: School, celery_worker_process: StartWorker) -> None:
    # Given a worker that is asked to stop, with a batch that never ends and all the time for it
    worker = celery_worker_process(1, **POISON_APP, **LONG, **SIZE)
    run = sleeping_batch(school)
    wait_until_begun(run)
    ask_to_stop(worker)

    # When it is asked again
    os.kill(worker.pid, signal.SIGTERM)

    # Then it doesn't wait for the batch any longer
    assert worker.wait_until_ended(PATIENCE_SECONDS) == REQUEUED
    celery_worker_process(1, **SIZE)
    wait_for(run)
    school.assert_intact(run)


@pytest.mark.slow
def test_interrupt_lets_batches_end_then_limits_them_then_gives_them_back(
    school: School, celery_worker_process: StartWorker
) -> None:
    # Given a worker with a batch that never ends
    worker = celery_worker_process(1, **POISON_APP, **LONG, **SIZE)
    run = sleeping_batch(school)
    wait_until_begun(run)

    # When it is interrupted, as by Ctrl-C
    os.kill(worker.pid, signal.SIGINT)

    # Then it tells, as any worker of Celery's, the effect of a second signal
    worker.wait_for_log("Hitting Ctrl+C again will initiate cold shutdown")
    worker.wait_for_log("Warm shutdown")

    # ... and a second time limits it, and a third one has it requeue the batch
    ask_to_stop(worker, signal.SIGINT)
    os.kill(worker.pid, signal.SIGINT)
    assert worker.wait_until_ended(PATIENCE_SECONDS) == REQUEUED
    celery_worker_process(1, **SIZE)
    wait_for(run)
    school.assert_intact(run)


@pytest.mark.slow
def test_celerys_own_worker_without_remapping_waits_for_batches_without_limit(
    school: School, celery_worker_process: StartWorker
) -> None:
    # Given a worker that Celery's command has started, in an environment that says nothing of SIGTERM
    worker = celery_worker_process(
        1, command=CELERYS, REMAP_SIGTERM="", WORKER_SOFT_SHUTDOWN_SECONDS="1", **SIZE
    )
    run = school.new_run()
    with held(root_unit(school)):
        assert CeleryDispatch().start(run)
        wait_for_a_batch(worker)

        # When it is asked to stop by SIGTERM, and then by SIGQUIT, which has the limit
        os.kill(worker.pid, signal.SIGTERM)
        worker.wait_for_log("Warm shutdown")
        assert "Stopping" not in worker.log()
        ask_to_stop(worker, signal.SIGQUIT)

        # Then it is the second that ends it
        assert worker.wait_until_ended(PATIENCE_SECONDS) == REQUEUED


def frozen(redis: Server) -> None:
    redis.freeze()


def gone(redis: Server) -> None:
    redis.end()


@pytest.mark.parametrize("fault", [frozen, pytest.param(gone, marks=pytest.mark.slow)])
@pytest.mark.parametrize("busy", [True, pytest.param(False, marks=pytest.mark.slow)])
@pytest.mark.parametrize("time", [1, *(pytest.param(time, marks=pytest.mark.slow) for time in (2, 3))])
def test_worker_ends_when_redis_fails_in_the_same_instant(
    school: School,
    redis: Server,
    start_worker: StartWorkerThere,
    fault: Callable[[Server], None],
    busy: bool,
    time: int,
) -> None:
    # Given a worker with a batch that doesn't end, or with nothing to do
    worker = start_worker(2, **SHORT)
    with held(root_unit(school)):
        if busy:
            sent(school)
            wait_for_a_batch(worker)

        # When Redis fails, and the worker is asked to stop, as when a machine is restarted
        fault(redis)
        os.kill(worker.pid, signal.SIGTERM)

        # Then it ends all the same
        worker.wait_until_ended(PATIENCE_SECONDS)


@pytest.mark.slow
def test_worker_that_waits_for_redis_without_limit_ends_too(
    school: School, redis: Server, start_worker: StartWorkerThere
) -> None:
    # Given a worker whose project has no timeouts for Redis, and that waits for an answer
    worker = start_worker(2, WITHOUT_SOCKET_TIMEOUTS="1", **SHORT)
    redis.freeze()

    # When it is asked to stop
    os.kill(worker.pid, signal.SIGTERM)

    # Then it leaves in the end
    assert worker.wait_until_ended(PATIENCE_SECONDS) == REQUEUED
    assert "the worker is held up, and leaves" in worker.log()


@pytest.mark.parametrize("moment", ["writing", pytest.param("reading", marks=pytest.mark.slow)])
def test_worker_stopped_while_it_talks_to_its_pool_ends_in_time(
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


@pytest.mark.slow
def test_batch_without_a_reported_start_goes_back(school: School, celery_worker_process: StartWorker) -> None:
    # Given a batch that takes for ever, and a worker that is asked to stop when it has just handed that over
    run = sleeping_batch(school)
    worker = celery_worker_process(1, **INTERRUPTED, INTERRUPTED="unheard", **SHORT)

    # Then the batch has its time of grace, and is requeued
    assert worker.wait_until_ended(PATIENCE_SECONDS) == REQUEUED
    assert "Restoring 1 unacknowledged message" in worker.log()

    # ... to another one, which takes it at once
    celery_worker_process(1)
    wait_for(run)
    school.assert_intact(run)
    assert set(run.batches.values_list("attempts", flat=True)) == {1}


@pytest.mark.slow
def test_run_survives_workers_that_are_replaced_again_and_again(
    school: School, celery_worker_process: StartWorker
) -> None:
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
    """Return a record of their stage."""
    rows = Store.objects.filter(model_name=model_name, partition__startswith=school.id, dirty_bit=True)
    return str(rows.earliest("id").id)
