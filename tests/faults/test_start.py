"""Starts of runs that end their workers: such a run comes to an end, and a slow one is left alone."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from django.db import connection

from morango_celery import retry
from morango_celery.messaging.dispatch import CeleryDispatch
from morango_celery.messaging.events import id_of_start
from morango_celery.models import Batch, Run
from morango_celery.runs.inprocess import run_in_process
from tests.faults.databases import WAITS_FOR_A_LOCK
from tests.poison_app.apps import SERIALIZED
from tests.support.processes import LoggedProcess
from tests.support.schools import MakeSchool, School
from tests.support.workers import StartWorker
from worker.school.models import Learner

pytestmark = [pytest.mark.django_db(transaction=True), pytest.mark.needs_postgresql]


@pytest.fixture
def start_worker(celery_worker_process: StartWorker) -> Callable[[int, int], LoggedProcess]:
    def start(concurrency: int, attempts: int) -> LoggedProcess:
        return celery_worker_process(
            concurrency, DJANGO_SETTINGS_MODULE="tests.poison_app.settings", MAX_ATTEMPTS=str(attempts)
        )

    return start


def edit_here(school: School, way: str) -> Learner:
    """Make a learner of the school here that no worker survives to serialize."""
    unit = school.expected.app["unit"][0]["id"]
    learner: Learner = Learner.objects.create(
        school_id=school.id, unit_id=unit, username=SERIALIZED + way, full_name="Ada"
    )
    return learner


def saved(school: School) -> School:
    """Return a school with its records in the app tables."""
    run_in_process(school.new_run())
    return school


@pytest.mark.parametrize("way", ["is killed", pytest.param("exits", marks=pytest.mark.slow)])
def test_start_that_kills_its_worker_each_time_fails_the_run(
    make_school: MakeSchool, start_worker: Callable[[int, int], LoggedProcess], way: str
) -> None:
    # Given a run that no worker survives the start of, and one of another school
    school, other = saved(make_school()), make_school()
    learner = edit_here(school, way)
    run, healthy = school.new_run(), other.new_run()

    # When a worker gets both
    worker = start_worker(1, 2)
    for each in (run, healthy):
        assert CeleryDispatch().start(each)
    worker.wait_until(lambda: all_have_ended(run, healthy), "ended", 60)

    # Then the run has failed after as many deaths as are allowed, and says why; the other is complete
    run.refresh_from_db()
    assert (run.state, run.batches.count()) == (Run.State.FAILED, 0)
    assert "Starting it was tried 2 times and never came to an end: its worker was killed" in run.error
    assert "`manage.py retry_run` does it" in run.error
    assert worker.log().count("Task handler raised error: WorkerLostError") == 2
    other.assert_intact(healthy)

    # ... and once the cause is mended, it is done again
    Learner.objects.filter(pk=learner.pk).update(username="harmless")
    assert retry(run.pk, wait=60).state == Run.State.COMPLETED


def test_work_after_a_runs_end_does_not_kill_one_recovery_after_another(
    make_school: MakeSchool, start_worker: Callable[[int, int], LoggedProcess]
) -> None:
    # Given a run that has ended, and whose local edits no worker survives to serialize
    school = saved(make_school())
    run = Run.objects.latest("pk")
    Run.objects.filter(pk=run.pk).update(conflicted=1, finalized=False, finished_at="2026-01-01T00:00:00Z")
    edit_here(school, "is killed")

    # When workers recover what waits, as often as they are allowed to die of it
    worker = start_worker(1, 2)
    worker.wait_until(lambda: all_have_ended(run), "followed up", 60)

    # Then they get past it, and say so
    assert worker.log().count("Task handler raised error: WorkerLostError") == 2
    worker.wait_for_log(f"run {run.pk} conflicted with was tried 2 times and never came to an end")


def test_messages_that_come_at_the_same_time_are_one_attempt(
    school: School, start_worker: Callable[[int, int], LoggedProcess]
) -> None:
    # Given the message of a run in the queue three times, and a start that takes its time
    run = school.new_run()
    for _ in range(3):
        assert CeleryDispatch().start(run)
    with connection.cursor() as cursor:
        cursor.execute("BEGIN")
        cursor.execute("LOCK TABLE morango_store")

        # When a worker that may try it once gets them all at the same time
        worker = start_worker(3, 1)
        waiting = f"SELECT count(*) FROM pg_stat_activity WHERE {WAITS_FOR_A_LOCK}"

        def one_waits() -> bool:
            cursor.execute("SELECT pg_stat_clear_snapshot()")
            cursor.execute(waiting)
            dropped = worker.log().count(f"start_run[{id_of_start(run)}] succeeded")
            return (cursor.fetchone()[0], dropped) == (1, 2)

        # Then two do nothing, and the processes that had them are free
        worker.wait_until(one_waits, "waiting")
        cursor.execute("COMMIT")

    # ... and nobody takes the one that waits for dead
    worker.wait_until(lambda: all_have_ended(run), "done", 60)
    school.assert_intact(run)
    assert set(run.batches.values_list("state", flat=True)) == {Batch.State.DONE}


def all_have_ended(*runs: Run) -> bool:
    return not Run.objects.filter(pk__in=[run.pk for run in runs], finalized=False).exists()
