"""Recovery from everywhere at once, and runs that are cancelled and done again while workers are at work."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path

import pytest
from django.db import connection
from morango.models import Store
from redis import Redis

from morango_celery import cancel, recover_runs, retry, tasks
from morango_celery.messaging.dispatch import CeleryDispatch
from morango_celery.models import Batch, Run
from morango_celery.runs.execution import execute_batch
from morango_celery.runs.producer import start
from tests.faults.databases import WAITS_FOR_A_LOCK
from tests.support.concurrency import again_and_again
from tests.support.processes import LoggedProcess
from tests.support.schools import MakeSchool, School
from tests.support.waiting import child_that_waits_for_a_lock, held, until
from tests.support.workers import StartWorker

pytestmark = [pytest.mark.django_db(transaction=True), pytest.mark.needs_postgresql]

SIZE = {"MORANGO_CELERY_BATCH_SIZE_RECORDS": "10"}

COMMAND = "command"
"""The application name of the sessions of ``manage.py``."""


@pytest.fixture
def command(redis_url: str, database_url: str, tmp_path: Path) -> Callable[..., LoggedProcess]:
    """Return a function that starts ``manage.py ...``."""
    number = iter(range(1000))

    def run(*arguments: str) -> LoggedProcess:
        environment = {"DATABASE_URL": database_url, "REDIS_URL": redis_url, "PGAPPNAME": COMMAND}
        return LoggedProcess(["worker", *arguments], tmp_path / f"command{next(number)}.log", environment)

    return run


def waiting(condition: str) -> int:
    """Return the number of sessions that wait for a lock."""
    with connection.cursor() as cursor:
        cursor.execute(f"SELECT count(*) FROM pg_stat_activity WHERE {WAITS_FOR_A_LOCK} AND {condition}")
        ((number,),) = cursor.fetchall()
    return int(number)


def commands_that_wait() -> int:
    return waiting(f"application_name = '{COMMAND}'")


def last(school: School) -> str:
    """Return a record of the last stage."""
    return str(Store.objects.filter(model_name="feedback", partition__startswith=school.id).earliest("id").id)


def never_sent(school: School) -> Run:
    return school.new_run()


def sent_to_a_broker_that_lost_it(school: School) -> Run:
    run = school.new_run()
    assert CeleryDispatch().start(run)
    return run


def opened_by_a_worker_that_died(school: School) -> Run:
    return start(school.new_run().pk).run


def between_two_stages(school: School) -> Run:
    run = start(school.new_run().pk).run
    for batch in list(run.batches.all()):
        execute_batch(batch.pk)
    return run


def with_a_split_batch(school: School) -> Run:
    run = start(school.new_run().pk).run
    batch = run.batches.earliest("pk")
    Batch.objects.filter(pk=batch.pk).update(attempts=100)
    tasks.deserialize_batch(batch.pk, batch.ids_sha256)
    assert run.batches.filter(split_from=batch.number).count() > 1
    return run


STATES = [
    never_sent,
    sent_to_a_broker_that_lost_it,
    opened_by_a_worker_that_died,
    between_two_stages,
    with_a_split_batch,
]


def test_simultaneous_recoveries_lose_and_double_no_batch(
    make_school: MakeSchool,
    celery_worker_process: StartWorker,
    command: Callable[..., LoggedProcess],
    redis_url: str,
) -> None:
    # Given runs in every state that they may be lost in, and a Redis that knows of none
    schools = [make_school(30) for _ in STATES]
    runs = [state(school) for state, school in zip(STATES, schools, strict=True)]
    with Redis.from_url(redis_url) as client:
        client.flushdb()
    sizes = {run.pk: run.batches.count() for run in runs}

    # When four processes recover them at the same time, workers are asked to, and do so when they start;
    # and no run can end before each of the four has sent what it has to, or waits for who is at what it sent
    with held(*map(last, schools)):
        commands = [command("recover_runs", "--all") for _ in range(4)]
        for _ in range(5):
            tasks.recover_runs.delay()
        for _ in range(2):
            celery_worker_process(2, **SIZE)
        until(lambda: sum(process.is_running for process in commands) == commands_that_wait(), "sent")
    assert [process.wait_until_ended() for process in commands] == [0] * 4

    # Then some of them have sent something, and every run is done, once. A process that is late finds nothing
    # but batches whose rows are held, which it leaves alone
    assert any("0 messages sent" not in process.log() for process in commands)
    until(lambda: not Run.objects.filter(finalized=False).exists(), "done", 60)
    for school, run in zip(schools, runs, strict=True):
        school.assert_intact(run)
        assert run.batches.count() >= sizes[run.pk]
    assert Run.objects.count() == len(runs)

    # ... and there is nothing left to recover
    again = command("recover_runs", "--all")
    assert again.wait_until_ended() == 0
    assert "0 messages sent." in again.log()


@pytest.mark.slow
def test_recovery_of_a_running_run_changes_no_result(
    school: School, celery_worker_process: StartWorker
) -> None:
    # Given a run that two workers are busy with
    workers = [celery_worker_process(1, **SIZE) for _ in range(2)]
    run = school.new_run()

    # When it is recovered all the time, and so what a worker is at the moment is sent once more
    with again_and_again(partial(recover_runs, all_unfinished=True), pause_seconds=0.05) as recovered:
        with held(last(school)):
            assert CeleryDispatch().start(run)
            until(lambda: any(child_that_waits_for_a_lock(worker.pid) for worker in workers), "in a batch")
            before = recovered[0]
            until(lambda: recovered[0] >= before + 2, "recovered")
        until(lambda: Run.objects.get(pk=run.pk).finalized, "done")

    # Then no batch was done twice, or taken for one that ends its workers
    school.assert_intact(run)
    assert set(run.batches.values_list("state", flat=True)) == {Batch.State.DONE}


@pytest.mark.slow
def test_run_cancelled_in_the_middle_of_a_batch_can_be_retried(
    school: School, celery_worker_process: StartWorker, command: Callable[..., LoggedProcess]
) -> None:
    # Given two workers in the middle of a run
    workers = [celery_worker_process(1, **SIZE) for _ in range(2)]
    first = school.new_run()
    attempts = [row["id"] for row in school.expected.app["attempt"]]
    with held(*attempts):
        assert CeleryDispatch().start(first)
        until(lambda: all(child_that_waits_for_a_lock(worker.pid) for worker in workers), "in a batch")

        # When it is cancelled, from several places
        commands = [command("cancel_run", str(first.pk)) for _ in range(3)]
        assert [process.wait_until_ended() for process in commands] == [0] * 3
        open_then = first.batches.filter(state=Batch.State.OPEN).count()

    # Then the batches in hand are completed and counted, and no other one is begun
    still_open = first.batches.filter(state=Batch.State.OPEN)
    until(lambda: still_open.count() == open_then - len(workers), "completed")
    first.refresh_from_db()
    assert first.state == Run.State.CANCELLED
    done_by_first = first.done
    assert 0 < done_by_first < first.records

    # When it is done again
    second = retry(first.pk, wait=60)

    # Then the two of them come to what one would have: each record was counted by one of them
    first.refresh_from_db()
    assert (first.state, first.done) == (Run.State.CANCELLED, done_by_first)
    school.assert_intact()
    counted = {
        name: getattr(first, name) + getattr(second, name) for name in ("saved", "deleted", "propagated")
    }
    assert counted == {name: school.expected.counts[name] for name in counted}
    assert second.failed == school.expected.counts["failed"]
    with pytest.raises(Exception, match="there is nothing to cancel"):
        cancel(second.pk)
