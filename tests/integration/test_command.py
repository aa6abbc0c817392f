"""The command line door."""

from __future__ import annotations

import os
import pty
import re
import subprocess
import sys
import termios
from io import StringIO
from pathlib import Path
from typing import Any

import pytest
from django.core.management import CommandError, call_command

from morango_celery.models import Run
from tests.support.factories import SCHOOL_ID, fill_store, store_row
from tests.support.processes import ROOT
from tests.support.workers import StartWorker
from worker.school.models import Unit


def run_command(*arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    """``manage.py deserialize`` in a process of its own."""
    return subprocess.run(
        [sys.executable, "-m", "worker", "deserialize", *arguments],
        cwd=ROOT,
        env={**os.environ, "PYTHONWARNINGS": "ignore", **environment},
        capture_output=True,
        text=True,
        timeout=60,
    )


@pytest.fixture(autouse=True)
def _in_a_transaction(settings: Any) -> None:
    settings.MORANGO_TEST_POSTGRESQL = True


@pytest.mark.django_db
class TestSummary:
    def test_command_sums_up_a_run(self) -> None:
        fill_store(20)
        out = StringIO()
        call_command("deserialize", "--profile", "school", "--in-process", stdout=out)
        assert re.search(r"20 records in .* 20 saved, 0 deleted, .* 0 failed", out.getvalue())

    def test_failures_are_grouped_by_exception_and_model(self) -> None:
        fill_store(10)
        for _ in range(3):
            store_row("lesson", unit_id="ab" * 16)
        store_row("unit", name=None)
        out = StringIO()
        with pytest.raises(SystemExit) as exit_status:
            call_command("deserialize", "--profile", "school", "--in-process", stdout=out)
        assert exit_status.value.code == 1
        first, second = re.findall(r"\d+ x .*", out.getvalue())
        assert first == "3 x lesson: django.db.utils.IntegrityError"
        assert second == "1 x unit: django.core.exceptions.ValidationError"
        assert "references non-existent unit" in out.getvalue()

    def test_several_prefixes_make_one_filter(self) -> None:
        here = store_row("unit")
        store_row("unit", school_id="ab" * 16)
        call_command(
            *("deserialize", "--profile", "school", "--in-process"),
            *("--filter", SCHOOL_ID, f"{SCHOOL_ID}:units", "--filter", "cd" * 16),
            stdout=StringIO(),
        )
        assert Unit.objects.get().id == here.id

    def test_records_in_error_are_skipped_on_request(self) -> None:
        store_row("unit", columns={"deserialization_error": "x", "deserialization_exception": "y"})
        arguments = ("deserialize", "--profile", "school", "--in-process", "--skip-erroring")
        call_command(*arguments, stdout=StringIO())
        assert not Unit.objects.exists()


@pytest.mark.django_db
class TestBadInput:
    def test_unknown_profile_is_refused_with_a_suggestion(self) -> None:
        with pytest.raises(CommandError, match="Did you mean 'school'"):
            call_command("deserialize", "--profile", "skool")

    def test_empty_filter_is_refused(self) -> None:
        with pytest.raises(CommandError, match="Leave the filter out"):
            call_command("deserialize", "--profile", "school", "--filter", "")

    def test_unknown_setting_is_refused_with_a_suggestion(self, settings: Any) -> None:
        settings.MORANGO_CELERY = {"MODES": "await"}
        with pytest.raises(CommandError, match=r"unknown key 'MODES'\. Did you mean 'MODE'"):
            call_command("deserialize", "--profile", "school")


class TestProcess:
    """The command as a process of a shell."""

    def test_exit_status_is_1_where_records_failed(self, database_url: str, transactional_db: None) -> None:
        fill_store(20)
        good = run_command("--profile", "school", "--in-process", DATABASE_URL=database_url)
        assert good.returncode == 0, good.stderr
        store_row("unit", name=None)
        bad = run_command("--profile", "school", "--in-process", DATABASE_URL=database_url)
        assert bad.returncode == 1
        assert "1 failed" in bad.stdout
        assert "Traceback" not in bad.stderr

    def test_unreachable_database_is_told_without_a_traceback(self, tmp_path: Path) -> None:
        urls = ["postgresql://nobody@127.0.0.1:1/nothing", f"sqlite:///{tmp_path}/missing/db.sqlite3"]
        for url in urls:
            process = run_command("--profile", "school", "--in-process", DATABASE_URL=url)
            assert process.returncode == 1
            assert "database" in process.stderr.lower()
            assert "Traceback" not in process.stderr

    def test_missing_tables_are_told_without_a_traceback(self, tmp_path: Path) -> None:
        url = f"sqlite:///{tmp_path}/empty.sqlite3"
        process = run_command("--profile", "school", "--in-process", DATABASE_URL=url)
        assert process.returncode == 1
        assert "migrate" in process.stderr
        assert "Traceback" not in process.stderr

    @pytest.mark.needs_postgresql  # on SQLite no broker is needed
    def test_command_says_that_workers_take_the_run(self, redis_url: str, database_url: str) -> None:
        process = run_command("--profile", "school", DATABASE_URL=database_url, REDIS_URL=redis_url)
        assert process.stdout == f"Run {Run.objects.get().pk} is in the ledger; workers take it from here.\n"

    @pytest.mark.needs_postgresql  # on SQLite no broker is needed
    def test_unreachable_broker_leaves_the_run_in_the_ledger(
        self, database_url: str, transactional_db: None
    ) -> None:
        nowhere = "redis://127.0.0.1:1/0"
        process = run_command("--profile", "school", DATABASE_URL=database_url, REDIS_URL=nowhere)
        run = Run.objects.get()
        assert (run.state, run.sent_at) == (Run.State.PENDING, None)
        assert process.returncode == 0, process.stderr
        assert "is in the ledger" in process.stdout
        assert "recover_runs" in process.stdout
        assert "Traceback" not in process.stderr

        # Recovery says that it waits, until the broker is back
        recovery = subprocess.run(
            [sys.executable, "-m", "worker", "recover_runs"],
            cwd=ROOT,
            env={**os.environ, "DATABASE_URL": database_url, "REDIS_URL": nowhere},
            capture_output=True,
            text=True,
            timeout=60,
        )
        assert (recovery.returncode, recovery.stdout) == (1, "0 messages sent.\n")
        assert "The broker can't be reached: 1 message waits in the ledger." in recovery.stderr

    def test_terminal_shows_progress(self, database_url: str, transactional_db: None) -> None:
        fill_store(50)
        terminal, theirs = pty.openpty()
        termios.tcsetwinsize(theirs, (24, 80))
        process = subprocess.Popen(
            [sys.executable, "-m", "worker", "deserialize", "--profile", "school", "--in-process"],
            cwd=ROOT,
            env={**os.environ, "DATABASE_URL": database_url, "TERM": "xterm", "PYTHONWARNINGS": "ignore"},
            stdout=subprocess.DEVNULL,
            stderr=theirs,
        )
        os.close(theirs)
        shown = b""
        try:
            while chunk := os.read(terminal, 4096):
                shown += chunk
        except OSError:  # how a terminal ends
            pass
        finally:
            os.close(terminal)
        assert process.wait(30) == 0
        assert b"50/50" in shown
        assert f"run {Run.objects.get().pk}: ".encode() in shown

    @pytest.mark.needs_postgresql
    @pytest.mark.django_db(transaction=True)
    def test_command_waits_for_workers_on_request(
        self, celery_worker_process: StartWorker, database_url: str
    ) -> None:
        celery_worker_process()
        fill_store(1_200)
        process = run_command("--profile", "school", "--wait", DATABASE_URL=database_url)
        assert process.returncode == 0, process.stderr
        assert "1200 saved" in process.stdout
