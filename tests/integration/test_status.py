"""The state of runs, seen from outside."""

from __future__ import annotations

import json
import os
import pty
import re
import signal
import subprocess
import sys
import termios
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psutil
import pytest
from morango.models.certificates import Filter

from morango_celery.api import runs_in_process
from morango_celery.errors import UnknownRunError
from morango_celery.management.formatting import duration
from morango_celery.management.json_output import RecordsJson
from morango_celery.models import Batch, Run, Worker
from morango_celery.runs import completion
from morango_celery.runs.batching import open_batches
from morango_celery.runs.control import cancel
from morango_celery.runs.execution import execute_batch
from morango_celery.runs.producer import advance, create_run, start
from morango_celery.runs.status import Status, recent, stalled, status_of
from morango_celery.runs.workers import note_worker
from tests.integration.status_command import shown, told
from tests.support.factories import SCHOOL_ID, fill_store, store_row
from tests.support.processes import ROOT, LoggedProcess
from tests.support.run_helpers import ago, carry_out, new_run
from worker.school.models import PROFILE

pytestmark = pytest.mark.django_db


@pytest.fixture(autouse=True)
def _a_worker_lives(db: None) -> None:
    note_worker("celery@here")


def filtered_run(*prefixes: str) -> Run:
    return create_run(PROFILE, Filter("\n".join(prefixes)), serialize_first=False, session_notified=True)


def silent_for(run: Run, seconds: float) -> None:
    Run.objects.filter(pk=run.pk).update(last_activity_at=ago(seconds), created_at=ago(seconds + 1))


class TestRun:
    """One run."""

    def test_waiting_records_are_counted_before_the_run_begins(self) -> None:
        fill_store(20)
        store_row("unit", columns={"deserialization_error": "x", "deserialization_exception": "y"})
        store_row("unit", school_id="ab" * 16)
        store_row("unit", dirty=False)

        assert status_of(new_run().pk).total == 22
        assert status_of(new_run(skip_erroring=True).pk).total == 21
        assert status_of(new_run(retry_errors=True).pk).total == 1
        filtered = filtered_run(SCHOOL_ID, f"{SCHOOL_ID}:units", "cd" * 16)
        assert status_of(filtered.pk).total == 21

    def test_status_has_progress_and_speed(self, batch_size: Callable[[int], None]) -> None:
        # Given a run of which one batch is done, with a record in error, a thousand seconds after it began
        batch_size(10)
        fill_store(40)
        store_row("lesson", unit_id="ab" * 16)
        run = start(new_run().pk).run
        first, *_ = open_batches(run)
        execute_batch(first.pk)
        tried = first.size
        Run.objects.filter(pk=run.pk).update(started_at=ago(1000))

        # When it is looked at
        status = status_of(run.pk)

        # Then all records count, those of later stages too
        assert (status.run.done, status.total) == (tried, 41)
        assert status.records_per_second == pytest.approx(tried / 1000, rel=0.1)
        assert status.seconds_left == pytest.approx((41 - tried) / tried * 1000, rel=0.1)
        assert not status.is_stalled
        code, text = shown(str(run.pk))
        assert code == 0
        assert f"Run {run.pk} of school: running, stage 1 (" in text
        assert f"  {tried} of 41 records: {tried - 1} saved, 1 failed; 0.0 a second, about 2:0" in text
        assert re.search(r"last sign of life \d", text)

    def test_records_that_gave_way_to_an_edit_do_not_wait(self) -> None:
        fill_store(10)
        run = new_run(state=Run.State.RUNNING, records=10, saved=6, conflicted=4, started_at=ago(1))
        assert status_of(run.pk).waiting == 6  # of the ten dirty ones

    def test_run_that_only_retries_errors_counts_those(self) -> None:
        fill_store(20)
        for _ in range(3):
            store_row("unit", columns={"deserialization_error": "x", "deserialization_exception": "y"})
        run = start(new_run(retry_errors=True).pk).run
        assert (run.records, status_of(run.pk).total) == (3, 3)

    def test_completed_run_is_summed_up_with_its_errors(self) -> None:
        fill_store(20)
        store_row("unit", name=None)
        run, _ = carry_out()
        code, text = shown(str(run.pk))
        assert code == 0
        assert f"Run {run.pk} of school: completed\n  21 of 21 records: 20 saved, 1 failed; " in text
        assert "left" not in text
        assert (
            "\n  In error now, under the run's filter:\n  1 x unit: django.core.exceptions.ValidationError"
            in text
        )

    def test_run_that_failed_says_why(self) -> None:
        run = new_run()
        completion.fail(run.pk, RuntimeError("There is no\npaper left."))
        code, text = shown(str(run.pk))
        assert code == 4
        assert "  RuntimeError: There is no\n  paper left." in text

    def test_cancelled_run_is_not_completed(self) -> None:
        run = cancel(new_run().pk)
        assert shown(str(run.pk))[0] == 4

    def test_unknown_run_has_an_exit_status_of_its_own(self) -> None:
        code, text = shown("4711")
        assert (code, text) == (5, "The ledger has no run 4711.")
        with pytest.raises(UnknownRunError):
            status_of(4711)

    def test_json_has_numbers_and_times(self, batch_size: Callable[[int], None]) -> None:
        batch_size(10)
        fill_store(20)
        run = start(filtered_run(SCHOOL_ID).pk).run
        first = next(open_batches(run))
        execute_batch(first.pk)

        found = told(str(run.pk))

        assert (found["run"], found["state"], found["stalled"]) == (run.pk, "running", False)
        assert found["filter"] == [SCHOOL_ID]
        assert found["batches"] == {"stage": run.stage_batches, "open": run.open_batches - 1}
        assert found["records"] == {
            "total": 20,
            "handed_out": run.records,
            "done": first.size,
            "done_by_others": 0,
            "saved": first.size,
            **dict.fromkeys(["deleted", "propagated", "conflicted", "failed"], 0),
            "waiting": 20 - first.size,
        }
        assert found["records_per_second"] > 0
        assert found["last_activity_at"] > found["created_at"]
        assert found["finished_at"] is None


class TestStalled:
    """Runs that nobody seems to carry out."""

    def test_run_without_a_sign_of_life_is_stalled(self, settings: Any) -> None:
        settings.MORANGO_CELERY = {"STALLED_AFTER_SECONDS": 100}
        run = new_run()
        for seconds, code in ((90, 0), (110, 3)):
            silent_for(run, seconds)
            assert shown(str(run.pk))[0] == shown()[0] == code
        assert re.search(r"STALLED: no sign of life for [12] min \d+ s", shown(str(run.pk))[1])
        assert f"STALLED, the oldest first: {run.pk}" in shown()[1]
        assert told()["stalled"] == [run.pk]
        assert told(str(run.pk))["stalled"] is True

    def test_run_in_a_process_of_its_own_may_be_silent_for_longer(self, settings: Any) -> None:
        settings.MORANGO_CELERY = {"STALLED_AFTER_SECONDS": 100}
        run = new_run(in_process=True)
        for seconds, code in ((390, 0), (410, 3)):
            silent_for(run, seconds)
            assert shown(str(run.pk))[0] == shown()[0] == code

    def test_begun_batch_is_a_sign_of_life(self) -> None:
        fill_store(10)
        run = start(new_run().pk).run
        silent_for(run, 10_000)
        assert list(stalled()) == [run]
        Batch.objects.filter(run=run).update(attempted_at=ago(5))
        assert list(stalled()) == []
        status = status_of(run.pk)
        assert not status.is_stalled
        assert 5 <= status.idle_seconds < 60

    def test_setting_says_after_how_long_a_run_is_stalled(self) -> None:
        run = new_run()
        silent_for(run, 20)
        assert shown(str(run.pk), "--stalled-after", "10")[0] == shown("--stalled-after", "10")[0] == 3
        assert shown(str(run.pk), "--stalled-after", "60")[0] == shown("--stalled-after", "60")[0] == 0

    def test_ended_run_is_not_stalled(self) -> None:
        run, _ = carry_out()
        Run.objects.filter(pk=run.pk).update(last_activity_at=ago(10_000), finished_at=ago(10_000))
        assert shown(str(run.pk))[0] == shown()[0] == 0


class TestList:
    """The newest runs."""

    def test_empty_ledger_is_told(self) -> None:
        code, text = shown()
        assert code == 0
        assert text.startswith("There are no runs.\n0 not done.\n")

    def test_newest_runs_come_first(self) -> None:
        runs = [new_run() for _ in range(5)]
        _, text = shown("--last", "3")
        assert [int(line.split()[0]) for line in text.splitlines()[1:4]] == [run.pk for run in runs[:1:-1]]
        assert "\n5 not done.\n" in text
        assert [one["run"] for one in told("--last", "2")["runs"]] == [run.pk for run in runs[:2:-1]]

    def test_failed_run_counts_until_a_later_one_made_it_good(self) -> None:
        failed = filtered_run(SCHOOL_ID)
        completion.fail(failed.pk, RuntimeError("no"))
        carry_out(filtered_run("cd" * 16))
        assert shown()[0] == 4
        carry_out(filtered_run(SCHOOL_ID))
        assert shown()[0] == 0
        assert shown(str(failed.pk))[0] == 4

    def test_cancelled_run_is_no_alarm(self) -> None:
        cancel(new_run().pk)
        assert shown()[0] == 0

    def test_number_of_queries_does_not_depend_on_the_runs(
        self, django_assert_num_queries: Any, batch_size: Callable[[int], None]
    ) -> None:
        batch_size(10)
        fill_store(100)
        for _ in range(2):
            start(new_run().pk)
        for _ in range(10):
            new_run()
        with django_assert_num_queries(1):
            assert len(recent(20)) == 12
        with django_assert_num_queries(8 if runs_in_process() else 10):
            shown()
        first = str(Run.objects.earliest("pk").pk)
        with django_assert_num_queries(5):
            shown(first)


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0.04, "0.0 s"), (9.4, "9.4 s"), (59, "59 s"), (200, "3 min 20 s"), (176700, "2 days, 1:05:00")],
)
def test_durations_are_readable(seconds: float, text: str) -> None:
    assert duration(seconds) == text


def test_run_that_takes_no_time_has_no_speed_out_of_this_world() -> None:
    now = ago(0)
    run = Run(started_at=now, finished_at=now, saved=5, records=5, state=Run.State.COMPLETED)
    assert Status(run, now, now, 900).records_per_second == 5000


def test_help_and_documentation_say_what_the_exit_status_means() -> None:
    helped = subprocess.run(
        [sys.executable, "-m", "worker", "deserialize_status", "--help"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=60,
    )
    page = (ROOT / "docs" / "reference" / "commands.md").read_text()
    for code in range(8):
        assert f"\n  {code}  " in helped.stdout
        assert f"\n| `{code}` | " in page


@pytest.mark.django_db(transaction=True)
class TestWatching:
    """A process of its own, while a run goes on."""

    def test_terminal_shows_progress_until_the_run_has_ended(
        self, database_url: str, batch_size: Callable[[int], None]
    ) -> None:
        # Given a run that has begun, and a terminal on which it is watched
        batch_size(10)
        fill_store(60)
        run = start(new_run().pk).run
        terminal, theirs = pty.openpty()
        termios.tcsetwinsize(theirs, (24, 100))
        process = subprocess.Popen(
            [*self.command(run), "--interval", "0.05"],
            cwd=ROOT,
            env={**os.environ, "DATABASE_URL": database_url, "TERM": "xterm", "PYTHONWARNINGS": "ignore"},
            stdout=theirs,
            stderr=theirs,
        )
        os.close(theirs)
        seen = self.read_until(terminal, b"0 of 60 records")

        # When it goes on to its end
        while not run.has_ended:
            for batch in list(open_batches(run)):
                execute_batch(batch.pk)
                run.refresh_from_db()
                seen += self.read_until(terminal, b"%d of 60 records" % run.done)
            run = advance(run.pk).run

        # Then each state was shown over the one before, and the command ended with the run
        seen += self.read_until(terminal, b"completed")
        assert process.wait(60) == 0
        os.close(terminal)
        assert b"\x1b[3F\x1b[J" in seen

    def test_ctrl_c_ends_it_with_the_status_of_the_last_look(self, database_url: str, tmp_path: Path) -> None:
        run = new_run()
        silent_for(run, 10_000)
        for arguments, code in (((str(run.pk),), 3), ((), 3), (("--stalled-after", "99999"), 0)):
            log = tmp_path / f"{'-'.join(arguments)}.log"
            watching = LoggedProcess(
                ["worker", "deserialize_status", *arguments, "--watch", "--json"],
                log,
                {"DATABASE_URL": database_url},
            )
            watching.wait_for_log("\n")
            os.kill(watching.pid, signal.SIGINT)
            assert watching.wait_until_ended() == code
            for line in log.read_text().splitlines():
                assert json.loads(line)

    def test_unchanged_lines_are_written_once_where_there_is_no_terminal(
        self, database_url: str, tmp_path: Path
    ) -> None:
        # Given an empty ledger that is watched; a worker's last sign of life would be another at each look
        Worker.objects.all().delete()
        watching = LoggedProcess(
            ["worker", "deserialize_status", "--watch", "--interval", "0.01"],
            tmp_path / "watch.log",
            {"DATABASE_URL": database_url},
        )
        watching.wait_for_log("0 not done.")

        # When it has been looked at for a while, and then has a run
        process = psutil.Process(watching.pid)
        enough = process.cpu_times().user + 0.2  # seconds, in which dozens of looks fit
        watching.wait_until(lambda: process.cpu_times().user > enough, "looking on")
        new_run()
        watching.wait_for_log("1 not done.")
        watching.stop()

        # Then it has written what it saw when that was new; a look's two queries may see different states
        assert watching.log().count("0 not done.") == 1
        assert "\x1b" not in watching.log()

    @staticmethod
    def command(run: Run) -> list[str]:
        return [sys.executable, "-m", "worker", "deserialize_status", str(run.pk), "--watch"]

    @staticmethod
    def read_until(terminal: int, text: bytes) -> bytes:
        """All that it shows until that, or until it ends."""
        seen = b""
        while text not in seen:
            try:
                seen += os.read(terminal, 4096)
            except OSError:  # how a terminal ends
                break
        assert text in seen, seen
        return seen


def test_json_has_each_outcome_of_records() -> None:
    counts = {"total", "handed_out", "done", "done_by_others", *Run.COUNTS, "waiting"}
    assert set(RecordsJson.__annotations__) == counts
