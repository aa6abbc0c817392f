"""Two workers share a run."""

from __future__ import annotations

import re

import pytest
from celery import Celery
from morango.models import Store
from pytest_celery import CeleryTestSetup, CeleryTestWorker, CeleryWorkerCluster

from morango_celery.api import wait_for
from morango_celery.messaging.task_names import START_RUN
from morango_celery.models import Batch
from tests.support.processes import PATIENCE_SECONDS
from tests.support.schools import School
from tests.support.waiting import held, sessions_that_wait_for_a_lock, until

pytestmark = [
    pytest.mark.django_db(transaction=True),
    pytest.mark.needs_postgresql,
]

DONE = re.compile(r"Task morango_celery\.deserialize_batch\[([^]]+)\] succeeded in \S+: \{'saved'")
"""Not of one that found its batch done."""


@pytest.fixture
def celery_worker_cluster(
    celery_setup_worker: CeleryTestWorker, other_worker: CeleryTestWorker
) -> CeleryWorkerCluster:
    return CeleryWorkerCluster(celery_setup_worker, other_worker)


def test_two_workers_share_batches_and_deserialize_each_record_once(
    celery_setup: CeleryTestSetup, school: School
) -> None:
    # Given two workers
    workers = celery_setup.worker_cluster
    assert names_that_answer(celery_setup.app) == {worker.hostname() for worker in workers}

    # When both of them are in the middle of a batch at the same time, and then go on
    run = school.new_run()
    with held(*Store.objects.filter(model_name="attempt").values_list("id", flat=True)):
        celery_setup.app.send_task(START_RUN, [run.pk])
        until(lambda: len(sessions_that_wait_for_a_lock()) == len(workers), "in a batch each")
    wait_for(run, PATIENCE_SECONDS)

    # Then every record has its end by one of them, at the first attempt
    school.assert_intact(run)
    assert set(Batch.objects.filter(run=run).values_list("attempts", "state")) == {(1, Batch.State.DONE)}

    # ... and every batch was done by one of them, some by each
    batches = Batch.objects.filter(run=run).count()
    first, second = workers
    until(lambda: len(done_by(first)) + len(done_by(second)) >= batches, "logged")
    assert len(done_by(first)) + len(done_by(second)) == batches
    assert done_by(first)
    assert done_by(second)


def done_by(worker: CeleryTestWorker) -> list[str]:
    """Return the tasks of the batches that the worker's log says it has done."""
    return DONE.findall(worker.logs())


def names_that_answer(app: Celery) -> set[str]:
    answers = app.control.ping(timeout=PATIENCE_SECONDS, limit=2)
    return {name for answer in answers for name in answer}
