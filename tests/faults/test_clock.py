"""Machines with wrong clocks beside others: nothing is missed, and nothing counts as lost, because of
them."""

from __future__ import annotations

from pathlib import Path

import pytest

from morango_celery.models import Batch, Run
from morango_celery.runs.status import status_of
from tests.faults.conftest import StartWorkerThere
from tests.faults.outages import STALLED_SOON, first, messages, sent, wait_for_a_batch
from tests.faults.servers import Server
from tests.support.clocks import wrong_clock
from tests.support.processes import LoggedProcess
from tests.support.schools import MakeSchool
from tests.support.waiting import held, until

pytestmark = [pytest.mark.django_db(transaction=True), pytest.mark.needs_postgresql]

HOUR = 60 * 60

SMALL = {"MORANGO_CELERY_BATCH_SIZE_RECORDS": "10"}


def wait_for(run: Run) -> None:
    until(lambda: Run.objects.get(pk=run.pk).finalized, "done")


def test_work_lost_by_a_worker_ahead_of_time_is_found_in_time(
    make_school: MakeSchool, redis: Server, start_worker: StartWorkerThere
) -> None:
    # Given a worker whose clock is an hour ahead, which has sent batches and executes one of them
    school = make_school(30)
    worker = start_worker(1, **SMALL, **wrong_clock(HOUR))
    with held(first("unit"), first("lesson")):
        run = sent(school)
        wait_for_a_batch(worker)

        # When it is lost, and so are its messages
        worker.kill()
        redis.end()
    redis.start()
    assert messages(redis) == 0

    # Then the status shows it, and another worker does the rest
    until(lambda: status_of(run.pk, 1).is_stalled, "stalled")
    start_worker(1, STALLED_AFTER_SECONDS=STALLED_SOON, **SMALL)
    wait_for(run)
    school.assert_intact(run)


@pytest.mark.parametrize("ahead_seconds", [HOUR, pytest.param(-HOUR, marks=pytest.mark.slow)])
def test_recovery_by_a_wrong_clock_takes_nothing_for_lost(
    make_school: MakeSchool,
    redis: Server,
    start_worker: StartWorkerThere,
    database_url: str,
    tmp_path: Path,
    ahead_seconds: int,
) -> None:
    # Given a run in a process of its own, and a worker in the middle of a batch, for which others wait
    school = make_school(30)
    wanted = first("unit")
    living = make_school(10).new_run(in_process=True, state=Run.State.RUNNING)
    worker = start_worker(1, **SMALL)
    with held(wanted):
        run = sent(school)
        wait_for_a_batch(worker)
        waiting = messages(redis)

        # When recovery looks for lost work, on a machine with another clock
        recovery = LoggedProcess(
            ["worker", "recover_runs"],
            tmp_path / "recovery.log",
            {"DATABASE_URL": database_url, "REDIS_URL": redis.url, **wrong_clock(ahead_seconds)},
        )
        assert recovery.wait_until_ended() == 0, recovery.log()

        # Then it finds nothing, and nothing is stalled
        assert "0 messages sent." in recovery.log()
        assert messages(redis) == waiting
        assert not status_of(run.pk).is_stalled
        living.refresh_from_db()
        assert (living.state, living.error) == (Run.State.RUNNING, "")
    wait_for(run)
    school.assert_intact(run)
    assert set(run.batches.values_list("attempts", flat=True)) == {1}


def test_workers_with_different_clocks_share_a_run(
    make_school: MakeSchool, redis: Server, start_worker: StartWorkerThere
) -> None:
    # Given two workers, one of which is an hour ahead, and the other one as much behind
    school = make_school(60)
    for ahead_seconds in (HOUR, -HOUR):
        start_worker(1, STALLED_AFTER_SECONDS=STALLED_SOON, **SMALL, **wrong_clock(ahead_seconds))

    # When they carry out a run, then it completes, and nothing is blamed
    run = sent(school)
    wait_for(run)
    school.assert_intact(run)
    assert set(run.batches.values_list("state", flat=True)) == {Batch.State.DONE}
