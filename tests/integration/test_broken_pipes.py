"""Commands whose output nobody reads any more: they end quietly, as others do, with the status of SIGPIPE."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, TypeAlias

import pytest
from django.core.management import call_command, get_commands

from morango_celery.management.base import BROKEN_PIPE
from tests.support.factories import SCHOOL_ID, store_row
from tests.support.processes import PATIENCE_SECONDS, ROOT
from tests.support.run_helpers import new_run
from tests.support.unread import Unread
from worker.school.models import PROFILE

pytestmark = [pytest.mark.django_db(transaction=True), pytest.mark.needs_postgresql]


def own_commands() -> set[str]:
    return {name for name, app in get_commands().items() if str(app).startswith("morango_celery")}


ANOTHER_ID = "a1" * 16

Ended: TypeAlias = "tuple[int, str]"
"""Exit status, and error output."""


def ends(
    commands: Iterable[Sequence[str]],
    database_url: str,
    log: Path = Path(os.devnull),
    *,
    errors_too: bool = False,
) -> list[Ended]:
    """Return the ends of commands whose standard output nobody reads, carried out at the same time."""
    given = [Unread(arguments=list(arguments), errors_too=errors_too) for arguments in commands]
    process = subprocess.run(
        [sys.executable, "-m", "tests.support.unread"],
        cwd=ROOT,
        env={
            **os.environ,
            "DATABASE_URL": database_url,
            "DJANGO_SETTINGS_MODULE": "tests.oplog.project",
            "OPLOG_FILE": str(log),
            "LOG_LEVEL": "ERROR",
        },
        input=json.dumps(given),
        stdout=subprocess.PIPE,
        text=True,
        timeout=3 * PATIENCE_SECONDS,
        check=True,
    )
    return [(status, errors) for status, errors in json.loads(process.stdout)]


@pytest.mark.timeout(300)
def test_every_command_ends_quietly_when_nobody_reads_what_it_says(
    tmp_path: Path, database_url: str, redis_url: str
) -> None:
    # Given something to say for each command, and records under each filter: of others, they warn
    store_row("unit", dirty=False)
    store_row("unit", partition=ANOTHER_ID, dirty=False)
    log = tmp_path / "changes.log"
    log.write_text("")
    run = new_run()
    again = new_run()
    again.move_to(again.State.CANCELLED)
    call_command("pause_runs", "--profile", PROFILE, "--filter", "other")
    arguments: dict[str, list[str]] = {
        "cancel_run": [str(run.pk)],
        "create_sync_indexes": [],
        "deserialize": ["--profile", PROFILE, "--filter", SCHOOL_ID, "--in-process"],
        "deserialize_status": [],
        "doctor": [],
        "explain_models": [],
        "ingest_objects": [str(log)],
        "pause_runs": ["--profile", PROFILE, "--filter", ANOTHER_ID],
        "prune_oplog": ["--days=1"],
        "prune_payloads": [],
        "prune_runs": ["--older-than=1d"],
        "record_objects": [],
        "recover_runs": ["--interval=0.1"],
        "resume_runs": ["--profile", PROFILE, "--filter", "other"],
        "retry_run": [str(again.pk)],
    }
    comparing = "compare_with_morango"
    assert {*arguments, comparing} == own_commands()

    # When nobody hears it
    commands = {name: [name, *given] for name, given in arguments.items()}
    ended = dict(zip(commands, ends(commands.values(), database_url, log), strict=True))

    # Then none complains
    assert ended == dict.fromkeys(arguments, (BROKEN_PIPE, ""))
    # Alone, for it gives way to others that write to the same rows; beside its output, it says whom it blocks
    ((status, beside),) = ends([[comparing, "--profile", PROFILE]], database_url)
    assert (status, beside.startswith("Comparing 0 records."), beside.count("\n")) == (BROKEN_PIPE, True, 1)


def test_help_and_errors_that_nobody_reads_end_quietly(database_url: str) -> None:
    # argparse goes on when it can't write
    assert ends([["recover_runs", "--help"]], database_url) == [(0, "")]
    unknown, wrong = ["cancel_run", "999"], ["cancel_run", "no number"]
    assert ends([unknown, wrong], database_url, errors_too=True) == [(BROKEN_PIPE, ""), (2, "")]


def test_error_is_told_to_whom_does_read_it(database_url: str) -> None:
    ((status, errors),) = ends([["cancel_run", "999"]], database_url)
    assert (status, errors.count("\n")) == (1, 1)
    assert "CommandError" in errors


def test_another_broken_connection_is_no_closed_pipe(monkeypatch: pytest.MonkeyPatch, capsys: Any) -> None:
    from morango_celery.payloads.management.commands import prune_payloads

    def refuse() -> None:
        raise BrokenPipeError(32, "Broken pipe")

    monkeypatch.setattr(prune_payloads, "payload_store", refuse)
    with pytest.raises(BrokenPipeError):
        prune_payloads.Command().run_from_argv(["manage.py", "prune_payloads"])
