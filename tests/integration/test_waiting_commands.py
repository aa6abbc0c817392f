"""Commands that somebody waits for: the run's number at once, a time limit, Ctrl-C, the work of others."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from io import StringIO
from pathlib import Path
from typing import Any

import pytest
from django.core.management import CommandError, call_command, load_command_class
from django.db import ProgrammingError, connection, transaction
from typing_extensions import override

from morango_celery.db.errors import remedy
from morango_celery.management.base import INTERRUPTED, PipeSafeCommand
from morango_celery.management.progress import progress_bar
from morango_celery.management.run_command import TIMED_OUT, RunCommand
from morango_celery.messaging.dispatch import CeleryDispatch
from morango_celery.models import Batch, Run
from morango_celery.runs.batching import open_batches
from morango_celery.runs.execution import execute_batch
from morango_celery.runs.producer import advance, start
from morango_celery.runs.recovery import count_overdue
from tests.support.factories import fill_store, store_row
from tests.support.processes import PATIENCE_SECONDS, ROOT
from tests.support.run_helpers import new_run, sent
from worker.school.models import PROFILE

NOWHERE = "redis://127.0.0.1:1/0"


@pytest.fixture(autouse=True)
def _in_a_transaction(settings: Any) -> None:
    settings.MORANGO_TEST_POSTGRESQL = True


def _hear_ctrl_c() -> None:
    """Undo the shell's doing: what runs in its background ignores SIGINT, and so do all children."""
    signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.mark.needs_postgresql  # on SQLite the command itself carries the run out
def test_interrupted_wait_says_that_the_run_goes_on(database_url: str) -> None:
    # Given a command that waits for a run, with no terminal
    with subprocess.Popen(
        [sys.executable, "-m", "worker", "deserialize", "--profile", PROFILE, "--wait"],
        cwd=ROOT,
        env={**os.environ, "DATABASE_URL": database_url, "REDIS_URL": NOWHERE},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        preexec_fn=_hear_ctrl_c,
    ) as waiting:
        try:
            # Then it names the run at once
            assert waiting.stdout is not None
            first = waiting.stdout.readline()
            run = Run.objects.get()
            assert first == f"Run {run.pk} of {PROFILE} has begun.\n"

            # When Ctrl-C is pressed
            waiting.send_signal(signal.SIGINT)
            _, errors = waiting.communicate(timeout=PATIENCE_SECONDS)
        finally:
            waiting.kill()

    # Then it says how to look at the run and how to end it, and the run is left as it is
    assert waiting.returncode == INTERRUPTED
    last = errors.splitlines()[-1]
    assert last.startswith(f"Interrupted. Run {run.pk} goes on: ")
    assert f"`manage.py deserialize_status {run.pk}`" in last
    assert f"`manage.py cancel_run {run.pk}`" in last
    assert "Traceback" not in errors
    run.refresh_from_db()
    assert run.state == Run.State.PENDING


@pytest.mark.needs_postgresql
def test_wait_ends_with_its_time_and_the_run_goes_on(transactional_db: None, redis_url: str) -> None:
    out, err = StringIO(), StringIO()

    with pytest.raises(SystemExit) as ended:
        call_command(
            *("deserialize", "--profile", PROFILE, "--wait", "--timeout", "0.05", "--json"),
            stdout=out,
            stderr=err,
        )

    assert ended.value.code == TIMED_OUT
    run = Run.objects.get()
    begun = json.loads(out.getvalue())
    assert (begun["run"], begun["state"]) == (run.pk, "pending")
    assert f"The run has not ended after 0.05 s. Run {run.pk} goes on: " in err.getvalue()
    assert run.state == Run.State.PENDING


@pytest.mark.django_db
@pytest.mark.parametrize(
    ("options", "reason"),
    [(["--timeout=1"], "needs --wait"), (["--timeout=1", "--wait", "--in-process"], "carried out here")],
)
def test_timeout_without_a_wait_for_workers_is_refused(options: list[str], reason: str) -> None:
    with pytest.raises(CommandError, match=reason) as refused:
        call_command("deserialize", "--profile", PROFILE, *options)

    assert vars(refused.value)["returncode"] == 2
    assert not Run.objects.exists()


@pytest.mark.django_db
def test_run_that_is_carried_out_here_is_written_once_as_json() -> None:
    fill_store(5)
    store_row("unit", name=None)
    out = StringIO()

    with pytest.raises(SystemExit) as ended:
        call_command("deserialize", "--profile", PROFILE, "--in-process", "--json", stdout=out)

    assert ended.value.code == 1  # a record is in error
    (line,) = out.getvalue().splitlines()
    written = json.loads(line)
    records = written["records"]
    assert (written["state"], records["saved"], records["failed"]) == ("completed", 5, 1)


@pytest.mark.django_db
def test_records_that_other_runs_have_done_are_told() -> None:
    # Given a run whose batch is handed out, and another that does all of its records first
    fill_store(5)
    slow = start(new_run().pk).run
    (batch,) = open_batches(slow)
    call_command("deserialize", "--profile", PROFILE, "--in-process", stdout=StringIO())

    # When the first one's batch comes
    execute_batch(batch.pk, batch.ids_sha256)
    ended = advance(slow.pk).run

    # Then it has saved none, and says so
    assert (ended.records, ended.done, ended.left_to_others) == (5, 0, 5)
    assert "0 failed, 5 done by other runs." in summary_of(ended)


@pytest.mark.django_db
def test_run_that_left_nothing_to_others_says_nothing_of_them() -> None:
    fill_store(5)
    out = StringIO()

    call_command("deserialize", "--profile", PROFILE, "--in-process", stdout=out)

    assert "0 failed.\n" in out.getvalue()
    assert Run.objects.get().left_to_others == 0
    assert Run(state=Run.State.CANCELLED, records=9).left_to_others == 0


@pytest.mark.django_db
def test_errors_that_are_there_now_have_their_heading() -> None:
    store_row("unit", name=None)
    out = StringIO()

    with pytest.raises(SystemExit):
        call_command("deserialize", "--profile", PROFILE, "--in-process", stdout=out)

    summary, heading, group, _ = out.getvalue().splitlines()
    assert "1 failed." in summary
    assert heading == "  In error now, under the run's filter:"
    assert group.startswith("  1 x unit: ")


@pytest.mark.django_db
def test_run_that_is_interrupted_here_is_told_to_end() -> None:
    err = StringIO()
    command = RunCommand(stderr=err)

    def interrupted(_: Any, see: Any) -> Run:
        see(new_run(in_process=True))
        raise KeyboardInterrupt

    with pytest.raises(SystemExit) as ended:
        command.follow_run({"wait": False, "timeout": None, "json": False}, interrupted, in_process=True)

    assert ended.value.code == INTERRUPTED
    assert f"Interrupted. Run {Run.objects.get().pk} ends with this process" in err.getvalue()


def test_command_that_is_interrupted_shows_no_traceback(capsys: pytest.CaptureFixture[str]) -> None:
    class Waiting(PipeSafeCommand):
        requires_system_checks: list[str] = []

        @override
        def handle(self, *args: Any, **options: Any) -> None:
            raise KeyboardInterrupt

    with pytest.raises(SystemExit) as ended:
        Waiting().run_from_argv(["manage.py", "waiting"])

    assert ended.value.code == INTERRUPTED
    assert capsys.readouterr().err == "Interrupted.\n"


@pytest.mark.django_db
@pytest.mark.parametrize("as_json", [True, False])
def test_recovery_without_a_broker_says_how_many_messages_wait(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, as_json: bool
) -> None:
    # Given two runs that nobody was told of, one that was sent just now, and no broker
    monkeypatch.setattr(CeleryDispatch, "start", lambda *_: False)
    for _ in range(2):
        new_run()
    Run.objects.filter(pk=new_run().pk).update(**sent())
    beat = tmp_path / "recovered"
    out, err = StringIO(), StringIO()

    # When they are to be sent
    options = [f"--heartbeat-file={beat}", *(["--json"] if as_json else [])]
    with pytest.raises(SystemExit) as ended:
        call_command("recover_runs", *options, stdout=out, stderr=err)

    # Then it has failed, and says how many wait
    assert ended.value.code == 1
    assert out.getvalue() == (
        '{"version": 1, "sent": 0, "waiting": 2}\n' if as_json else "0 messages sent.\n"
    )
    assert "The broker can't be reached: 2 messages wait in the ledger." in err.getvalue()
    assert not beat.exists()


@pytest.mark.django_db
def test_batches_count_among_the_messages_that_wait() -> None:
    fill_store(5)
    run = start(new_run().pk).run
    assert count_overdue() == 0  # what was begun just now isn't overdue

    Batch.objects.update(overdue_at=None)
    new_run(in_process=True)

    assert (run.open_batches, count_overdue()) == (1, 1)


@pytest.mark.django_db
@pytest.mark.needs_postgresql
def test_missing_privilege_on_the_schema_is_not_answered_with_migrate_alone() -> None:
    with connection.cursor() as cursor:
        cursor.execute(
            "CREATE ROLE stranger; REVOKE USAGE ON SCHEMA public FROM PUBLIC; SET LOCAL ROLE stranger"
        )
    with pytest.raises(ProgrammingError) as unseen, transaction.atomic():
        Run.objects.count()
    assert "GRANT it USAGE on their schema" in remedy(unseen.value)

    with connection.cursor() as cursor:
        cursor.execute("RESET ROLE; GRANT USAGE ON SCHEMA public TO stranger; SET LOCAL ROLE stranger")
    with pytest.raises(ProgrammingError, match="permission denied") as denied, transaction.atomic():
        Run.objects.count()
    assert remedy(denied.value).startswith("The database's user may not do this: GRANT it SELECT, ")


class Terminal(StringIO):
    @override
    def isatty(self) -> bool:
        return True


@pytest.mark.parametrize("stream", [Terminal(), StringIO()])
def test_bar_is_shown_on_a_terminal_alone(monkeypatch: pytest.MonkeyPatch, stream: StringIO) -> None:
    monkeypatch.setattr(sys, "stderr", stream)

    with progress_bar("letters") as bar:
        bar.show(2, 3, label="Removing", failed=1)

    shown = stream.getvalue()
    if stream.isatty():
        assert "Removing" in shown
        assert "2/3" in shown
        assert " letters" in shown
        assert "failed=1" in shown
    else:
        assert shown == ""


def summary_of(run: Run) -> str:
    out = StringIO()
    command = load_command_class("morango_celery", "deserialize")
    assert isinstance(command, RunCommand)
    command.stdout = type(command.stdout)(out)
    command.follow_run({"wait": True, "timeout": None, "json": False}, lambda *_: run, in_process=True)
    return out.getvalue()
