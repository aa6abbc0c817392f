"""Redis that doesn't answer: frozen, or behind a network that swallows its bytes."""

from __future__ import annotations

import time
from collections.abc import Callable
from contextlib import ExitStack

import pytest
from morango.constants import transfer_stages, transfer_statuses

from morango_celery.api import wait_for
from morango_celery.models import Run
from morango_celery.tasks import recover_runs
from tests.faults.conftest import StartWorkerThere
from tests.faults.outages import (
    STALLED_SOON,
    by_a_sync,
    by_the_function,
    first,
    sent,
    wait_for_a_batch,
)
from tests.faults.proxy import proxy_to
from tests.faults.servers import Server
from tests.support.schools import School
from tests.support.sync_state import is_at
from tests.support.waiting import held, until

pytestmark = [pytest.mark.django_db(transaction=True), pytest.mark.needs_postgresql]

BOUND_SECONDS = 60
"""Limit in seconds. Measured are 5 to 15; the fault would last without end."""


@pytest.fixture
def school(transactional_db: None) -> School:
    return School(rows=200)


@pytest.mark.parametrize("begin", [by_a_sync, pytest.param(by_the_function, marks=pytest.mark.slow)])
@pytest.mark.parametrize("connected", [True, pytest.param(False, marks=pytest.mark.slow)])
def test_asking_for_a_run_comes_back_while_redis_is_frozen(
    school: School,
    redis: Server,
    start_worker: StartWorkerThere,
    begin: Callable[[School], Run],
    connected: bool,
) -> None:
    # Given a process that has a connection to Redis, or none yet
    if connected:
        recover_runs.delay()

    # When a run is asked for while Redis is frozen
    with redis.frozen():
        began = time.monotonic()
        run = begin(school)
        took_seconds = time.monotonic() - began

        # Then the request is answered, and the run waits in the ledger
        assert took_seconds < BOUND_SECONDS
        run.refresh_from_db()
        assert (run.state, run.sent_at) == (Run.State.PENDING, None)

    # ... and completes once Redis has thawed
    start_worker()
    wait_for(run, 60)
    school.assert_intact(run)
    if begin is by_a_sync:
        until(lambda: is_at(transfer_stages.DESERIALIZING, transfer_statuses.COMPLETED), "told")


def test_worker_takes_messages_again_when_redis_has_thawed(
    school: School, redis: Server, start_worker: StartWorkerThere
) -> None:
    # Given a worker with as many batches as it takes
    worker = start_worker(1, STALLED_AFTER_SECONDS="150")  # and so one look for unsent messages in 10 s
    with ExitStack() as holding:
        holding.enter_context(held(first("unit")))
        run = sent(school)
        wait_for_a_batch(worker)

        # When Redis is frozen while the batch ends, and its message can't be acknowledged
        with redis.frozen():
            holding.close()
            worker.wait_for_log("Couldn't ack")

    # Then the worker completes the run
    wait_for(run, 60)
    school.assert_intact(run)
    assert worker.is_running


@pytest.mark.slow
def test_worker_that_waits_for_messages_connects_again_when_redis_has_thawed(
    school: School, redis: Server, start_worker: StartWorkerThere
) -> None:
    # Given a worker that has nothing to do
    worker = start_worker(2)

    # When Redis freezes for so long that the worker notices
    with redis.frozen():
        worker.wait_for_log("Connection to broker lost")

    # Then it has connected again, and carries a run out
    run = sent(school)
    wait_for(run, 60)
    school.assert_intact(run)
    assert worker.is_running


def test_worker_leaves_connections_that_swallow_everything(
    school: School, redis: Server, start_worker: StartWorkerThere
) -> None:
    # Given a worker with a batch, and a network between it and Redis
    with proxy_to(redis.url) as proxy:
        worker = start_worker(2, through=proxy.url, STALLED_AFTER_SECONDS=STALLED_SOON)
        with held(first("unit")):
            run = sent(school)
            wait_for_a_batch(worker)

            # When nothing comes through any more over the connections that there are
            assert proxy.swallow() > 1

        # Then the worker notices, connects anew, and completes the run
        wait_for(run, 120)
        school.assert_intact(run)
        assert worker.is_running
