"""Locked rows, and workers that freeze or are lost with their locks: no other run waits for them."""

from __future__ import annotations

import contextlib
import os
import signal
import time
from collections.abc import Callable, Iterator

import psutil
import pytest
from django.db import connection
from morango.models import Store

from morango_celery.messaging.dispatch import CeleryDispatch
from morango_celery.messaging.events import id_of_start
from morango_celery.models import Run
from tests.faults.recoveries import recoveries, sent_again
from tests.support.processes import LoggedProcess
from tests.support.schools import MakeSchool, School
from tests.support.waiting import (
    child_that_waits_for_a_lock,
    held,
    held_partition,
    held_rows,
    sessions_that_wait_for_a_lock,
    until,
)
from tests.support.workers import StartWorker

pytestmark = [pytest.mark.django_db(transaction=True), pytest.mark.needs_postgresql]

STALLED_SOON = "4"
"""STALLED_AFTER_SECONDS of workers that look for lost messages four times a second."""

SHORT = {"SOFT_TIME_LIMIT": "4", "TIME_LIMIT": "6"}
"""Time limits by which a worker waits for a lock for a second, and the server for a worker for 6.6."""

OTHERS = 2
"""Number of runs that complete beside the one that waits."""

BY_DEFAULT_SECONDS = 90
"""Limit on a run's wait when its worker is lost."""


@pytest.fixture
def start_worker(celery_worker_process: StartWorker) -> Callable[..., LoggedProcess]:
    def start(concurrency: int, **environment: str) -> LoggedProcess:
        settings = {"DJANGO_SETTINGS_MODULE": "tests.faults.outage_settings"}
        return celery_worker_process(
            concurrency, **{**settings, "STALLED_AFTER_SECONDS": STALLED_SOON, **environment}
        )

    return start


def found(school: School) -> Run:
    """Create a run that a worker's recovery sends: a message has the time limits of its sender."""
    return school.new_run()


def sent(school: School) -> Run:
    run = school.new_run()
    assert CeleryDispatch().start(run)
    return run


def old_lesson(school: School) -> str:
    """Save an app row that a batch is to change."""
    found: str = next(row["id"] for row in school.expected.app["lesson"] if row["title"] == "new")
    return found


@contextlib.contextmanager
def lesson_of(school: School) -> Iterator[int]:
    """Somebody's transaction holds a row that a batch of the school wants."""
    with held_rows("school_lesson", f"id = '{old_lesson(school)}'") as holder:
        yield holder


def is_done(run: Run) -> bool:
    return bool(Run.objects.get(pk=run.pk).finalized)


def wait_for_others(make_school: MakeSchool, holder: int | None = None) -> None:
    """Check that runs of other schools complete while at most one process waits for the holder."""
    for _ in range(OTHERS):
        other = make_school(30)
        run = found(other)

        def is_over(run: Run = run) -> bool:
            if holder is not None:
                assert len(sessions_that_wait_for_a_lock(holder)) <= 1
            return is_done(run)

        until(is_over, "done beside it")
        other.assert_intact(run)


def attempts(run: Run) -> set[int]:
    return set(run.batches.values_list("attempts", flat=True))


def sent_in_a_while(worker: LoggedProcess) -> int:
    """Return the number of messages that recovery sends in more than STALLED_AFTER_SECONDS."""
    recovered, found = recoveries(worker), sent_again(worker)
    worker.wait_until(lambda: recoveries(worker) > recovered + 20, "recovering")
    return sent_again(worker) - found


def test_held_row_keeps_one_process_and_no_other_run(
    make_school: MakeSchool, start_worker: Callable[..., LoggedProcess]
) -> None:
    # Given a batch that wants a row which somebody's transaction holds
    school = make_school(30)
    worker = start_worker(2)
    with lesson_of(school) as holder:
        run = found(school)
        until(lambda: sessions_that_wait_for_a_lock(holder), "waiting")

        # When recovery looks for lost batches again and again, then it isn't sent once more
        assert sent_in_a_while(worker) == 0
        assert len(sessions_that_wait_for_a_lock(holder)) <= 1

        # ... and others' runs complete
        wait_for_others(make_school, holder)

    # Then it is completed when the row is free, by the attempt that waited, or one after it
    until(lambda: is_done(run), "done")
    school.assert_intact(run)
    assert attempts(run) == {1}


def test_batch_that_waits_too_long_for_a_lock_frees_its_process(
    make_school: MakeSchool, start_worker: Callable[..., LoggedProcess]
) -> None:
    # Given the only process of a worker, which waits for a row
    school = make_school(30)
    worker = start_worker(1, **SHORT)
    with lesson_of(school) as holder:
        run = found(school)
        until(lambda: sessions_that_wait_for_a_lock(holder), "waiting")

        # Then others have it before time limits end it, and nothing is sent twice
        wait_for_others(make_school, holder)
        assert "canceling statement due to lock timeout" in worker.log()
        assert "time limit" not in worker.log()

    # ... and the batch isn't blamed for it
    until(lambda: is_done(run), "done")
    school.assert_intact(run)
    assert attempts(run) == {1}


@pytest.mark.slow
def test_start_that_waits_for_a_partition_lets_others_have_the_process(
    make_school: MakeSchool, start_worker: Callable[..., LoggedProcess]
) -> None:
    # Given a run that can't begin while somebody is alone on its partition, as Morango is in a large sync
    school = make_school(30)
    worker = start_worker(1, **SHORT)
    with held_partition(school.id) as holder:
        run = found(school)
        until(lambda: sessions_that_wait_for_a_lock(holder), "waiting")

        wait_for_others(make_school, holder)
        assert "canceling statement due to lock timeout" in worker.log()
        assert "time limit" not in worker.log()

    until(lambda: is_done(run), "done")
    school.assert_intact(run)


def test_frozen_process_keeps_no_other_run(
    make_school: MakeSchool, start_worker: Callable[..., LoggedProcess]
) -> None:
    # Given one of a worker's processes that freezes in the middle of a batch
    school = make_school(30)
    worker = start_worker(2)
    with lesson_of(school) as holder:
        run = found(school)
        frozen = until(lambda: child_that_waits_for_a_lock(worker.pid, holder), "in a batch")
        frozen.suspend()

    # When recovery looks for lost batches all the time, then its batch isn't sent, and others' runs complete
    assert sent_in_a_while(worker) == 0
    wait_for_others(make_school)
    assert not is_done(run)

    # ... and so does its own when it thaws
    frozen.resume()
    until(lambda: is_done(run), "done")
    school.assert_intact(run)
    assert attempts(run) == {1}


@pytest.mark.slow
def test_batch_of_a_frozen_process_is_completed_by_another(
    make_school: MakeSchool, start_worker: Callable[..., LoggedProcess]
) -> None:
    school = make_school(30)
    worker = start_worker(2, **SHORT)
    with lesson_of(school) as holder:
        run = found(school)
        frozen = until(lambda: child_that_waits_for_a_lock(worker.pid, holder), "in a batch")
        frozen.suspend()

    # When its time is up, then another process does its batch
    until(lambda: is_done(run), "done")
    school.assert_intact(run)
    assert "Hard time limit (6s) exceeded" in worker.log()


def freeze(worker: LoggedProcess) -> None:
    os.killpg(worker.pid, signal.SIGSTOP)
    until(lambda: psutil.Process(worker.pid).status() == psutil.STATUS_STOPPED, "frozen")


def thaw(worker: LoggedProcess) -> None:
    os.killpg(worker.pid, signal.SIGCONT)


def test_batch_of_a_frozen_worker_is_completed_by_another(
    make_school: MakeSchool, start_worker: Callable[..., LoggedProcess]
) -> None:
    # Given a worker that freezes as a whole in the middle of a batch
    school = make_school(30)
    worker = start_worker(1, **SHORT)
    with lesson_of(school) as holder:
        run = found(school)
        until(lambda: child_that_waits_for_a_lock(worker.pid, holder), "in a batch")
        freeze(worker)

    # When there is another one, then it does everybody else's runs, and the batch once the server gives up
    start_worker(1, **SHORT)
    wait_for_others(make_school)
    until(lambda: is_done(run), "done")
    school.assert_intact(run)

    # ... and nothing happens twice when the first one thaws
    done_twice = [run.state, run.done, *attempts(run)]
    thaw(worker)
    worker.wait_until(lambda: worker.log().count(f"start_run[{id_of_start(run)}]") > 1, "over with it")
    wait_for_others(make_school)
    school.assert_intact(run)
    assert [run.state, run.done, *attempts(run)] == done_twice


@pytest.mark.slow
def test_frozen_worker_that_has_more_to_read_than_fits_gives_its_batch_up(
    make_school: MakeSchool, start_worker: Callable[..., LoggedProcess]
) -> None:
    # Given a worker that freezes while the server has megabytes to send to it
    school = make_school(400, mixed=False)
    lessons = Store.objects.filter(model_name="lesson", partition__startswith=school.id)
    with connection.cursor() as cursor:
        cursor.execute(
            "UPDATE morango_store SET serialized = (serialized::jsonb || jsonb_build_object('more',"
            " repeat('x', 380000)))::text WHERE model_name = 'lesson'"
        )
    school.expected = school.undisturbed()
    worker = start_worker(1, **SHORT)
    with held(str(lessons.earliest("id").id)) as holder:
        run = found(school)
        until(lambda: child_that_waits_for_a_lock(worker.pid, holder), "in a batch")
        freeze(worker)
    writing = "SELECT count(*) FROM pg_stat_activity WHERE wait_event = 'ClientWrite'"
    with connection.cursor() as cursor:

        def is_writing() -> bool:
            cursor.execute(writing)
            return bool(cursor.fetchone()[0])

        until(is_writing, "writing to it")

    # Then another one does the batch all the same
    start_worker(1, **SHORT)
    until(lambda: is_done(run), "done")
    school.assert_intact(run)
    thaw(worker)


def test_session_of_a_killed_process_does_not_go_on_waiting(
    make_school: MakeSchool, start_worker: Callable[..., LoggedProcess]
) -> None:
    # Given a process that waits for a row in the database, of a worker that misses it soon when it is gone
    school = make_school(30)
    settings = "tests.faults.settings"
    worker = start_worker(1, DJANGO_SETTINGS_MODULE=settings, STALLED_AFTER_SECONDS="900")
    with lesson_of(school) as holder:
        run = sent(school)
        child = until(lambda: child_that_waits_for_a_lock(worker.pid, holder), "waiting")
        (session,) = sessions_that_wait_for_a_lock(holder)

        # When it is killed, then its session doesn't wait in its place for long
        child.kill()
        until(lambda: session not in sessions_that_wait_for_a_lock(holder), "gone")

    # ... and its message, which came again before that, isn't left to recovery
    assert "still executes the batch" in worker.log()
    until(lambda: is_done(run), "done", 40)
    school.assert_intact(run)


@pytest.mark.parametrize(
    ("resend_after", "within_seconds"),
    [("60", 45), pytest.param("900", BY_DEFAULT_SECONDS, marks=pytest.mark.slow, id="by default")],
)
def test_run_of_a_killed_worker_waits_for_no_time_limit(
    make_school: MakeSchool,
    start_worker: Callable[..., LoggedProcess],
    resend_after: str,
    within_seconds: float,
) -> None:
    # Given two workers, one of which is in the middle of a batch, just begun
    school = make_school(30)
    worker = start_worker(1, STALLED_AFTER_SECONDS=resend_after)
    with lesson_of(school) as holder:
        run = sent(school)
        until(lambda: child_that_waits_for_a_lock(worker.pid, holder), "in a batch")
        other = start_worker(1, STALLED_AFTER_SECONDS=resend_after)
        other.wait_until(lambda: recoveries(other) > 0, "recovered")

        # When that is killed with all its processes
        worker.kill()

    # Then the other one completes its run
    killed = time.monotonic()
    until(lambda: is_done(run), "done", within_seconds)
    print(f"waited {time.monotonic() - killed:.1f} s")
    school.assert_intact(run)
    assert max(attempts(run)) == 2


def test_retry_that_is_lost_with_its_worker_comes_all_the_same(
    make_school: MakeSchool, start_worker: Callable[..., LoggedProcess]
) -> None:
    # Given a batch that is to be tried again by a message which a worker keeps until then
    school = make_school(30)
    worker = start_worker(1, **SHORT)
    with lesson_of(school):
        run = found(school)
        worker.wait_for_log("Retry in ")

        # When that is killed with all its processes
        worker.kill()

    # Then another one completes the run
    start_worker(1, **SHORT)
    until(lambda: is_done(run), "done")
    school.assert_intact(run)
