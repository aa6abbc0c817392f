"""Messages that come twice, at the same time, late, in another order, or for a run that is no more."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from redis import Redis

from morango_celery import cancel
from morango_celery.messaging.dispatch import CeleryDispatch
from morango_celery.models import Batch, Run
from morango_celery.runs.batching import open_batches
from morango_celery.runs.producer import start
from tests.faults.messages import DELIVERED, MessageShuffler
from tests.support.processes import LoggedProcess
from tests.support.queues import lists
from tests.support.run_helpers import deserialized_state
from tests.support.schools import School
from tests.support.waiting import until
from tests.support.workers import StartWorker

pytestmark = [pytest.mark.django_db(transaction=True), pytest.mark.needs_postgresql]


@pytest.fixture
def start_workers(celery_worker_process: StartWorker) -> Callable[[], list[LoggedProcess]]:
    def start() -> list[LoggedProcess]:
        return [
            celery_worker_process(2, queue=DELIVERED, MORANGO_CELERY_BATCH_SIZE_RECORDS="15")
            for _ in range(2)
        ]

    return start


def all_taken(redis_url: str) -> Callable[[], bool]:
    """Return True if workers have taken every message, and are done with it."""

    def taken() -> bool:
        with Redis.from_url(redis_url) as client:
            return not client.exists(*lists(), *lists(DELIVERED), "unacked")

    return taken


@pytest.mark.parametrize("seed", [1, pytest.param(2, marks=pytest.mark.slow)])
def test_doubled_late_and_reordered_messages_change_no_result(
    school: School, start_workers: Callable[[], Any], redis_url: str, seed: int
) -> None:
    # Given two workers with two processes each, and a shuffler that doubles and reorders messages
    start_workers()
    run = school.new_run()
    with MessageShuffler(redis_url, seed) as shuffler:
        # When the run is carried out, and once more delivered all that was ever sent, last things first
        assert CeleryDispatch().start(run)
        until(lambda: Run.objects.get(pk=run.pk).finalized, "done", 60)
        until(all_taken(redis_url), "taken")
        school.assert_intact(run)
        before = deserialized_state()
        for message in reversed(shuffler.messages):
            shuffler.deliver(message)
        until(all_taken(redis_url), "taken")
        delivered = shuffler.delivered

    # Then each batch was done once, and late messages did nothing
    assert deserialized_state() == before
    school.assert_intact(run)
    assert set(run.batches.values_list("state", flat=True)) == {Batch.State.DONE}
    assert delivered["deserialize_batch"] > 2 * run.batches.count() > 40
    assert delivered["start_run"] > 1


@pytest.mark.slow
@pytest.mark.parametrize("fate", ["cancelled", "deleted"])
def test_messages_for_a_run_that_is_gone_change_nothing(
    school: School, start_workers: Callable[[], list[LoggedProcess]], redis_url: str, fate: str
) -> None:
    # Given a run whose first stage is open, and that is then cancelled or deleted
    run = school.new_run()
    with MessageShuffler(redis_url, seed=3) as shuffler:
        assert CeleryDispatch().start(run)
        (batch,) = open_batches(start(run.pk).run)
        assert CeleryDispatch().batch(batch)
        if fate == "cancelled":
            cancel(run.pk)
        else:
            Run.objects.filter(pk=run.pk).delete()
        before = deserialized_state()

        # When workers get all of its messages
        workers = start_workers()
        until(all_taken(redis_url), "taken")
        until(lambda: len(shuffler.messages) >= 4, "sent")  # the run, a batch, recovery of each worker
        until(all_taken(redis_url), "taken")

        # Then nothing happens, and the next run does it all
        assert deserialized_state() == before
        if fate == "deleted":
            logs = "".join(worker.log() for worker in workers)
            assert f"Run {run.pk} is not in the ledger: it was deleted." in logs
        again = school.new_run()
        assert CeleryDispatch().start(again)
        until(lambda: Run.objects.get(pk=again.pk).finalized, "done", 60)
    school.assert_intact(again)
    assert all(worker.is_running for worker in workers)
