"""`manage.py recover_runs --interval`: recovery as a service of its own."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest
from django.core.management import CommandError, call_command
from django.db import connection

from morango_celery.models import Run
from morango_celery.runs.producer import create_run
from tests.support.processes import LoggedProcess
from worker.school.models import PROFILE


@pytest.fixture
def recovery(database_url: str, redis_url: str, tmp_path: Path) -> Iterator[LoggedProcess]:
    """Twice a second, with the file "recovered" to tell when it last succeeded."""
    process = LoggedProcess(
        ["worker", "recover_runs", "--interval=0.5", f"--heartbeat-file={tmp_path / 'recovered'}"],
        tmp_path / "recovery.log",
        {"DATABASE_URL": database_url, "REDIS_URL": redis_url, "PYTHONUNBUFFERED": "1"},
    )
    process.wait_for_log("0 messages sent.")
    yield process
    process.stop()


def test_command_sends_waiting_runs_until_it_is_stopped(recovery: LoggedProcess, tmp_path: Path) -> None:
    # When a run waits that nobody was told of
    run = create_run(PROFILE, None)

    # Then it is found and sent, and SIGTERM ends the command
    recovery.wait_for_log("1 message sent.")
    assert (tmp_path / "recovered").exists()
    assert Run.objects.get(pk=run.pk).sent_at is not None
    os.kill(recovery.pid, signal.SIGTERM)
    assert recovery.wait_until_ended() == 0


@pytest.mark.needs_postgresql
def test_command_survives_an_outage_of_the_database(recovery: LoggedProcess) -> None:
    # When its session is cut
    with connection.cursor() as cursor:
        cursor.execute(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
            " WHERE datname = current_database() AND pid <> pg_backend_pid()"
        )

    # Then it says so, and goes on
    recovery.wait_for_log("Nothing is lost; trying again.")
    create_run(PROFILE, None)
    recovery.wait_for_log("1 message sent.")


@pytest.mark.parametrize("arguments", [["--interval=0"], ["--interval=-1"], ["--interval=5", "--all"]])
def test_nonsense_arguments_are_refused(arguments: list[str]) -> None:
    with pytest.raises(CommandError, match="--interval"):
        call_command("recover_runs", *arguments)
