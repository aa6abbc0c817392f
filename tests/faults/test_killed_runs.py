"""Runs that processes carry out themselves, killed or frozen: the next one ends the former, and no others."""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from django.db import connection

import morango_celery
from morango_celery.models import Run
from morango_celery.runs.recovery import recover
from tests.support import factories
from tests.support.processes import ROOT, LoggedProcess
from tests.support.run_helpers import RecordingDispatcher, ago, dirty_ids, new_run
from worker.school.models import PROFILE

pytestmark = pytest.mark.django_db(transaction=True)

RUN = """
import os, signal
import django
django.setup()
from morango_celery.runs import inprocess
from morango_celery.runs.producer import create_run

stops = [signal.SIGSTOP]

def stop(run):
    if stops:
        print("in the middle", flush=True)
        os.kill(os.getpid(), stops.pop())

run = create_run("school", None, serialize_first=False, session_notified=True, in_process=True)
inprocess.run_in_process(run, stop)
print("carried out", flush=True)
"""


@pytest.fixture
def frozen(database_url: str, tmp_path: Path) -> Iterator[LoggedProcess]:
    """Start a process that stops after the first of three batches, without any lock in the database."""
    for _ in range(3):
        factories.store_row("unit")
    script = tmp_path / "carry_out.py"
    script.write_text(RUN)
    process = LoggedProcess(
        [sys.executable, str(script)],
        tmp_path / "run.log",
        {
            **os.environ,
            "PYTHONPATH": str(ROOT),
            "DATABASE_URL": database_url,
            "MORANGO_CELERY_BATCH_SIZE_RECORDS": "1",
        },
        as_in_container=True,
    )
    try:
        process.wait_for_log("in the middle")
        yield process
    finally:
        process.kill()


def new_run_here() -> Run:
    return morango_celery.deserialize(PROFILE, in_process=True)


def new_run_as_morango_calls_it() -> Run:
    return morango_celery.deserialize_from_store(PROFILE)


@pytest.mark.parametrize("begin", [new_run_here, new_run_as_morango_calls_it])
def test_killed_process_leaves_its_run_to_the_next_one(
    frozen: LoggedProcess, begin: Callable[[], Run]
) -> None:
    killed = Run.objects.get()
    frozen.kill()
    if connection.vendor != "sqlite":  # only time tells there
        Run.objects.update(last_activity_at=ago(4 * 900 + 1))

    done = begin()

    killed.refresh_from_db()
    assert (killed.state, killed.finalized) == (Run.State.FAILED, True)
    assert killed.error.startswith("Its process ")
    assert ("is gone" in killed.error) is (connection.vendor == "sqlite")
    assert killed.saved >= 1
    assert (done.state, done.saved, dirty_ids()) == (Run.State.COMPLETED, 3 - killed.saved, set())


def test_frozen_process_keeps_its_run_on_sqlite_however_long_it_is_silent(frozen: LoggedProcess) -> None:
    if connection.vendor != "sqlite":
        pytest.skip("PostgreSQL has no sign of life that a pooler keeps")
    run = Run.objects.get()
    Run.objects.update(last_activity_at=ago(10**6))

    assert new_run_here().saved == 2
    recover(RecordingDispatcher())

    run.refresh_from_db()
    assert run.state == Run.State.RUNNING
    os.kill(frozen.pid, signal.SIGCONT)
    frozen.wait_until_ended()
    run.refresh_from_db()
    assert (run.state, run.saved) == (Run.State.COMPLETED, 1)
    assert "carried out" in frozen.log()


def test_pending_run_is_left_alone_until_it_is_stalled() -> None:
    waiting = new_run(in_process=True)

    new_run_here()
    assert Run.objects.get(pk=waiting.pk).state == Run.State.PENDING

    Run.objects.filter(pk=waiting.pk).update(last_activity_at=ago(4 * 900 + 1))
    new_run_here()
    assert Run.objects.get(pk=waiting.pk).state == Run.State.FAILED
