"""Small runs don't wait for large ones, and large ones don't wait for ever."""

from __future__ import annotations

import json
import re
import signal

import pytest
from morango.models import Store
from morango.models.certificates import Filter
from redis import Redis

import morango_celery
from morango_celery.api import wait_for
from morango_celery.conf import batch_size_records
from morango_celery.messaging.dispatch import CeleryDispatch
from morango_celery.messaging.events import id_of_start
from morango_celery.messaging.priorities import MAX_BATCHES
from morango_celery.models import Batch, Run
from morango_celery.runs.producer import create_run
from morango_celery.worker.priorities import READS_PER_TURN
from tests.support import factories
from tests.support.processes import LoggedProcess
from tests.support.queues import lengths, list_of
from tests.support.run_helpers import open_batch
from tests.support.waiting import child_that_waits_for_a_lock, has_ended, held, until
from tests.support.workers import StartWorker
from worker.celery import app
from worker.school.models import PROFILE

pytestmark = pytest.mark.django_db(transaction=True)

OTHER_SCHOOL = "0a" * 16
NOT_IN_THE_LEDGER = 10**9


def send_urgent(number: int) -> None:
    """Messages of which nothing comes, but that go first."""
    for _ in range(number):
        app.send_task("morango_celery.start_run", [NOT_IN_THE_LEDGER])


def received(worker: LoggedProcess) -> list[str]:
    """Return the tasks that it has taken, in this order."""
    return re.findall(r"Task morango_celery\.(\w+)\[\S+ received", worker.log())


def test_small_run_overtakes_a_large_one(celery_worker_process: StartWorker) -> None:
    # Given one worker process, in the middle of one of a run's many batches
    factories.fill_store(600)
    worker = celery_worker_process(concurrency=1, MORANGO_CELERY_BATCH_SIZE_RECORDS="10")
    attempts = Store.objects.filter(model_name="attempt").values_list("id", flat=True)
    with held(*attempts):
        large = morango_celery.deserialize(PROFILE, factories.SCHOOL_ID)
        until(lambda: child_that_waits_for_a_lock(worker.pid), "in the middle of a batch")
        done = set(large.batches.filter(state=Batch.State.DONE).values_list("pk", flat=True))
        large.refresh_from_db()
        assert large.open_batches > 30

        # When another school syncs a few records
        factories.fill_store(20, school_id=OTHER_SCHOOL)
        small = morango_celery.deserialize(PROFILE, OTHER_SCHOOL)

    # Then of the large run's batches, only the one that was begun, and one on its turn, are done before it
    wait_for(small, 60)
    wait_for(large, 60)
    before = large.batches.filter(finished_at__lt=small.finished_at).exclude(pk__in=done)
    assert before.count() <= 2
    assert (small.saved, large.saved) == (20, 600)


def test_begun_runs_go_before_new_ones_and_before_large_ones(
    celery_worker_process: StartWorker,
) -> None:
    # Given runs to be started, then a batch of a large run, and then one of a small run that has begun
    pending = []
    for number in range(2):
        school = f"{number:032x}"
        factories.store_row("unit", school_id=school)
        pending.append(create_run(PROFILE, Filter(school), serialize_first=False, session_notified=True))
    large, small = open_batch(200_000), open_batch(100)
    for run in pending:
        assert CeleryDispatch().start(run)
    for batch in (large, small):
        assert CeleryDispatch().batch(batch)

    # When a worker process takes them one after another
    celery_worker_process(concurrency=1)
    until(lambda: not Run.objects.exclude(state=Run.State.COMPLETED).exists(), "done", 60)

    # Then the small run has ended before the others begin, and the large one is the last
    ends = Run.objects.order_by("finished_at").values_list("pk", flat=True)
    assert list(ends) == [small.run_id, *(run.pk for run in pending), large.run_id]


def test_urgent_messages_without_end_do_not_keep_larger_runs_waiting(
    celery_worker_process: StartWorker,
) -> None:
    # Given a run to be started, batches of larger ones, and in front of them more urgent messages than one
    # turn has
    factories.store_row("unit", school_id=OTHER_SCHOOL)
    pending = create_run(PROFILE, Filter(OTHER_SCHOOL), serialize_first=False, session_notified=True)
    batches = [open_batch(records) for records in (2_000_000, 20_000)]
    for batch in batches:
        assert CeleryDispatch().batch(batch)
    assert CeleryDispatch().start(pending)
    send_urgent(5 * READS_PER_TURN)

    # When one worker process takes them all
    worker = celery_worker_process(concurrency=1)
    worker.wait_until(
        lambda: received(worker).count("start_run") == 5 * READS_PER_TURN + 1, "through with them"
    )

    # Then each of the runs has had its turn meanwhile, and not before
    taken = re.findall(r"Task morango_celery\.(\w+)\[(\S+)\] received", worker.log())
    assert taken[READS_PER_TURN - 1] == ("start_run", id_of_start(pending))
    turns = [
        number
        for number, (task, message) in enumerate(taken, start=1)
        if task == "deserialize_batch" or message == id_of_start(pending)
    ]
    assert turns == [READS_PER_TURN, 2 * READS_PER_TURN, 3 * READS_PER_TURN]
    until(lambda: not Batch.objects.filter(state=Batch.State.OPEN).exists(), "done")


def test_recovery_and_retries_send_by_the_same_rule(redis_url: str) -> None:
    # Given runs of each size, whose messages were lost
    most = [batches * batch_size_records() for batches in MAX_BATCHES]
    sizes = [records + more for records in most for more in (0, 1)]
    batches = [open_batch(records) for records in sizes]

    # When they are sent, and sent again by recovery
    for batch in batches:
        assert CeleryDispatch().batch(batch)
    with Redis.from_url(redis_url) as client:
        assert lengths(client) == {0: 1, 6: 2, 9: 1}
        assert morango_celery.recover_runs(all_unfinished=True) == len(sizes)

        # Then those of larger runs wait behind those of smaller ones, each time
        assert lengths(client) == {0: 2, 6: 4, 9: 2}


def test_batch_that_is_delivered_again_keeps_its_place(celery_worker_process: StartWorker) -> None:
    # Given a large run's batch, in the middle of which its process is killed while urgent messages wait
    batch = open_batch(200_000)
    worker = celery_worker_process(concurrency=1)
    with held(*batch.store_ids):
        assert CeleryDispatch().batch(batch)
        child = until(lambda: child_that_waits_for_a_lock(worker.pid), "in the middle of the batch")
        send_urgent(3)
        child.send_signal(signal.SIGKILL)
        until(lambda: has_ended(child), "dead")

    # When the worker goes on
    until(lambda: not Batch.objects.filter(state=Batch.State.OPEN).exists(), "done", 60)

    # Then it has taken these first; the batch may well come twice
    order = [task for task in received(worker) if task != "recover_runs"]
    assert order[:4] == ["deserialize_batch", *["start_run"] * 3]
    assert set(order[4:]) == {"deserialize_batch"}


def test_messages_without_a_priority_are_taken(celery_worker_process: StartWorker, redis_url: str) -> None:
    # Given a message as it was sent before there were priorities, of a run that is large by now
    batch = open_batch(200_000)
    assert CeleryDispatch().batch(batch)
    with Redis.from_url(redis_url) as client:
        message = json.loads(client.rpop(list_of(9)))
        del message["properties"]["priority"]
        client.lpush(list_of(0), json.dumps(message))

    # When a worker of today comes upon it
    celery_worker_process(concurrency=1)

    # Then it is carried out
    wait_for(Run.objects.get(pk=batch.run_id), 60)
