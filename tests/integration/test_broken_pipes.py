"""Commands whose output nobody reads any more: they end quietly, as others do, with the status of SIGPIPE."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from django.core.management import get_commands

from morango_celery.management.base import BROKEN_PIPE
from tests.support.processes import PATIENCE_SECONDS, ROOT
from tests.support.run_helpers import new_run
from worker.school.models import PROFILE

pytestmark = [pytest.mark.django_db(transaction=True), pytest.mark.needs_postgresql]

Process = subprocess.Popen[bytes]


def own_commands() -> set[str]:
    return {name for name, app in get_commands().items() if str(app).startswith("morango_celery")}


def unread(
    arguments: Sequence[str], database_url: str, log: Path = Path(os.devnull), *, errors_too: bool = False
) -> Process:
    """Start a command whose standard output is a pipe without a reader."""
    reads, writes = os.pipe()
    os.close(reads)
    try:
        return subprocess.Popen(
            [sys.executable, "-m", "worker", *arguments],
            cwd=ROOT,
            env={
                **os.environ,
                "DATABASE_URL": database_url,
                "DJANGO_SETTINGS_MODULE": "tests.oplog.project",
                "OPLOG_FILE": str(log),
            },
            stdin=subprocess.DEVNULL,
            stdout=writes,
            stderr=writes if errors_too else subprocess.PIPE,
        )
    finally:
        os.close(writes)


def ends(process: Process) -> tuple[int, bytes]:
    """Return the exit status, and the command's error output without lines of the log."""
    _, errors = process.communicate(timeout=3 * PATIENCE_SECONDS)
    lines = (errors or b"").splitlines(keepends=True)
    return process.returncode, b"".join(line for line in lines if b" INFO morango_celery." not in line)


@pytest.mark.timeout(300)
def test_every_command_ends_quietly_when_nobody_reads_what_it_says(
    tmp_path: Path, database_url: str, redis_url: str
) -> None:
    # Given something to say for each command
    log = tmp_path / "changes.log"
    log.write_text("")
    run = new_run()
    again = new_run()
    again.move_to(again.State.CANCELLED)
    arguments: dict[str, list[str]] = {
        "cancel_run": [str(run.pk)],
        "create_sync_indexes": [],
        "deserialize": ["--profile", PROFILE, "--in-process"],
        "deserialize_status": [],
        "doctor": [],
        "explain_models": [],
        "ingest_objects": [str(log)],
        "prune_oplog": ["--days=1"],
        "prune_payloads": [],
        "prune_runs": ["--older-than=1d"],
        "record_objects": [],
        "recover_runs": ["--interval=0.1"],
        "retry_run": [str(again.pk)],
    }
    comparing = "compare_with_morango"
    holding = ["pause_runs", "resume_runs"]  # which others would notice
    assert {*arguments, comparing, *holding} == own_commands()

    # When nobody hears it
    processes = {name: unread([name, *given], database_url, log) for name, given in arguments.items()}

    # Then none complains
    ended = {name: ends(process) for name, process in processes.items()}
    assert ended == dict.fromkeys(arguments, (BROKEN_PIPE, b""))
    assert [ends(unread([name], database_url)) for name in holding] == [(BROKEN_PIPE, b"")] * len(holding)
    # Alone, for it gives way to others that write to the same rows; beside its output, it says whom it blocks
    status, beside = ends(unread([comparing, "--profile", PROFILE], database_url))
    assert (status, beside.startswith(b"Comparing 0 records."), beside.count(b"\n")) == (BROKEN_PIPE, True, 1)


def test_help_and_errors_that_nobody_reads_end_quietly(database_url: str) -> None:
    processes = [
        unread(["recover_runs", "--help"], database_url),
        unread(["cancel_run", "999"], database_url, errors_too=True),
        unread(["cancel_run", "no number"], database_url, errors_too=True),
    ]
    # argparse goes on when it can't write
    assert [ends(process) for process in processes] == [(0, b""), (BROKEN_PIPE, b""), (2, b"")]


def test_error_is_told_to_whom_does_read_it(database_url: str) -> None:
    status, errors = ends(unread(["cancel_run", "999"], database_url))
    assert (status, errors.count(b"\n")) == (1, 1)
    assert b"CommandError" in errors


def test_another_broken_connection_is_no_closed_pipe(monkeypatch: pytest.MonkeyPatch, capsys: Any) -> None:
    from morango_celery.payloads.management.commands import prune_payloads

    def refuse() -> None:
        raise BrokenPipeError(32, "Broken pipe")

    monkeypatch.setattr(prune_payloads, "payload_store", refuse)
    with pytest.raises(BrokenPipeError):
        prune_payloads.Command().run_from_argv(["manage.py", "prune_payloads"])
