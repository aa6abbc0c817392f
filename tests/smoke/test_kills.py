"""A worker or its broker is killed in the middle of a run, and started again: nothing is lost."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
from morango.models import Store
from pytest_celery import CeleryTestSetup

from morango_celery.api import wait_for
from morango_celery.messaging.task_names import START_RUN
from morango_celery.models import Batch, Run
from tests.support.processes import PATIENCE_SECONDS
from tests.support.queues import lengths
from tests.support.schools import School
from tests.support.waiting import held, sessions_that_wait_for_a_lock, until

pytestmark = [
    pytest.mark.django_db(transaction=True),
    pytest.mark.needs_postgresql,
]


@pytest.fixture
def default_worker_env(default_worker_env: dict[str, str]) -> dict[str, Any]:
    return {
        **default_worker_env,
        "STALLED_AFTER_SECONDS": "6",
    }  # missed soon, and no worker is busy with recovery alone


def test_killed_and_restarted_worker_completes_the_run(celery_setup: CeleryTestSetup, school: School) -> None:
    # Given a worker that is killed in the middle of a batch
    worker = celery_setup.worker
    with in_the_middle_of_a_batch(celery_setup, school) as run:
        worker.kill()
        assert worker.container.status == "exited"

    # When it is started again
    worker.restart()

    # Then it completes the run, that batch included
    wait_for(run, PATIENCE_SECONDS)
    school.assert_intact(run)
    assert Batch.objects.filter(run=run, attempts=2, state=Batch.State.DONE).exists()


def test_run_completes_after_a_broker_is_restarted_empty(
    celery_setup: CeleryTestSetup, school: School
) -> None:
    # Given a broker with messages, which is killed in the middle of a batch
    broker, worker = celery_setup.broker, celery_setup.worker
    with in_the_middle_of_a_batch(celery_setup, school) as run:
        with broker.container.client as redis:
            assert lengths(redis)
            redis.set("what there was", "before")
        broker.kill()
        assert broker.container.status == "exited"
        until(lambda: "Connection to broker lost" in worker.logs(), "missed by the worker")

        # When it is started again, and has nothing any more
        broker.restart()
        with broker.container.client as redis:
            assert redis.get("what there was") is None

    # Then the same worker completes the run
    wait_for(run, PATIENCE_SECONDS)
    school.assert_intact(run)
    assert worker.ready()


@contextmanager
def in_the_middle_of_a_batch(setup: CeleryTestSetup, school: School) -> Iterator[Run]:
    """Start a run whose worker waits for records that another transaction holds, while other batches wait
    for it."""
    run = school.new_run()
    with held(*Store.objects.filter(model_name="attempt").values_list("id", flat=True)):
        setup.app.send_task(START_RUN, [run.pk])
        until(sessions_that_wait_for_a_lock, "in the middle of a batch")
        yield run
