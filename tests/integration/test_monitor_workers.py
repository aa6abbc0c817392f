"""`deserialize_status` knows whether a worker lives, speaks to Nagios, and ends in time."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import threading
from io import StringIO
from typing import Any

import pytest
from django.core.management import call_command

from morango_celery import tasks
from morango_celery.management import nagios
from morango_celery.management.commands.deserialize_status import Command
from morango_celery.management.deadline import ends_after
from morango_celery.models import Batch, Run, Worker
from morango_celery.runs import completion
from morango_celery.runs.workers import note_worker, signs_of_workers
from tests.integration.status_command import shown, told
from tests.support.factories import store_row
from tests.support.processes import ROOT
from tests.support.run_helpers import ago, carry_out, new_run

pytestmark = pytest.mark.django_db

NO_WORKER, FAILED = 6, 4
LOST = 301
"""Seconds without a sign of life after which there is no worker, by default."""


@pytest.fixture
def worker() -> Worker:
    note_worker("celery@here")
    return Worker.objects.get()


@pytest.mark.needs_postgresql
class TestWorkers:
    def test_ledger_without_a_worker_is_not_well(self) -> None:
        code, text = shown()
        assert code == NO_WORKER
        assert (
            "\n0 workers; none has ever given a sign of life.\nNO WORKER has ever given a sign of life."
            in text
        )
        assert told()["workers"] == {"number": 0, "idle_seconds": None}

    def test_pending_run_without_a_worker_is_not_well(self) -> None:
        run = new_run()
        code, text = shown(str(run.pk))
        assert (code, told(str(run.pk))["status"]) == (NO_WORKER, "no_worker")
        assert "\n  NO WORKER has ever given a sign of life. See that one is running." in text

    def test_ended_run_and_run_in_process_need_no_worker(self) -> None:
        run, _ = carry_out()
        assert shown(str(run.pk))[0] == shown(str(new_run(in_process=True).pk))[0] == 0

    def test_worker_is_lost_after_a_while(self, worker: Worker) -> None:
        for seconds, code in ((LOST - 30, 0), (LOST, NO_WORKER)):
            Worker.objects.update(seen_at=ago(seconds))
            assert shown()[0] == code
        assert "NO WORKER has given a sign of life for 5 min " in shown()[1]
        assert shown("--worker-within=600")[0] == 0
        assert told()["workers"]["number"] == 1

    def test_limit_follows_the_interval_at_which_workers_ask_for_recovery(
        self, worker: Worker, settings: Any
    ) -> None:
        settings.MORANGO_CELERY = {"STALLED_AFTER_SECONDS": 90}
        Worker.objects.update(seen_at=ago(20))
        assert shown()[0] == 0
        Worker.objects.update(seen_at=ago(31))
        assert shown()[0] == NO_WORKER

    def test_worker_with_long_batches_lives(self, worker: Worker) -> None:
        """It has no process for recovery."""
        Worker.objects.update(seen_at=ago(LOST))
        run = new_run(state=Run.State.RUNNING, last_activity_at=ago(LOST))
        batch = Batch.objects.create(run=run, stage=1, number=1, size=1, ids_sha256="")
        assert shown()[0] == NO_WORKER

        Batch.objects.filter(pk=batch.pk).update(attempted_at=ago(200))
        assert shown()[0] == 0

        Batch.objects.filter(pk=batch.pk).update(attempted_at=None)
        Run.objects.filter(pk=run.pk).update(last_activity_at=ago(200))
        assert shown()[0] == 0

    def test_recovery_notes_the_worker_that_carries_it_out(self) -> None:
        Worker.objects.create(name="celery@gone", seen_at=ago(8 * 24 * 60 * 60))
        tasks.recover_runs.apply().get()
        (worker,) = Worker.objects.all()  # and the one that was gone for a week is forgotten
        assert worker.name
        Worker.objects.update(seen_at=ago(100))

        tasks.recover_runs.apply().get()

        signs = signs_of_workers()
        assert (signs.number, Worker.objects.count()) == (1, 1)
        assert signs.idle_seconds is not None
        assert signs.idle_seconds < 60

    def test_recovery_by_hand_is_no_workers_sign_of_life(self) -> None:
        call_command("recover_runs", stdout=StringIO())
        tasks.recover_runs()
        assert not Worker.objects.exists()


@pytest.mark.usefixtures("worker")
class TestNagios:
    def test_plugin_says_that_all_is_well_with_numbers(self) -> None:
        code, text = shown("--nagios")
        first, *_ = text.splitlines()
        assert code == nagios.OK
        assert first.startswith("MORANGO_CELERY OK: 0 not done. | unfinished=0;;;0 oldest_pending=0s;;;0 ")

    def test_limit_is_a_warning_and_all_else_critical(self) -> None:
        store_row("unit", columns={"deserialization_error": "x", "deserialization_exception": "y"})
        code, text = shown("--nagios", "--max-failed=0")
        assert code == nagios.WARNING
        assert text.startswith("MORANGO_CELERY WARNING: 1 record in error now: more than 0 | ")

        run = new_run()
        completion.fail(run.pk, RuntimeError("no"))
        code, text = shown("--nagios", "--max-failed=0")
        assert code == nagios.CRITICAL
        assert text.startswith(f"MORANGO_CELERY CRITICAL: FAILED, and made good by no later run: {run.pk} | ")
        assert "\n1 record in error now: more than 0\n" in text
        assert shown("--nagios", str(run.pk))[0] == nagios.CRITICAL

    def test_unknown_run_is_unknown(self) -> None:
        code, text = shown("--nagios", "4711")
        assert (code, text) == (nagios.UNKNOWN, "MORANGO_CELERY UNKNOWN: The ledger has no run 4711.\n")

    def test_everything_unexpected_is_unknown(
        self, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
    ) -> None:
        def fail(*arguments: Any, **options: Any) -> None:
            raise KeyError("surprise")

        monkeypatch.setattr("morango_celery.management.commands.deserialize_status.overview", fail)
        for arguments in (["--nagios"], ["--nagios", "--last=x"], ["--nagios", "--json"]):
            with pytest.raises(SystemExit) as ended:
                Command().run_from_argv(["manage.py", "deserialize_status", *arguments])
            assert ended.value.code == nagios.UNKNOWN
        assert capsys.readouterr().out == "MORANGO_CELERY UNKNOWN: KeyError: 'surprise'\n"

    def test_plugin_looks_once(self) -> None:
        code, text = shown("--nagios", "--watch")
        assert (code, "can't go with --watch" in text) == (nagios.UNKNOWN, True)


class TestTimeout:
    @pytest.mark.needs_postgresql
    def test_database_that_does_not_answer_ends_the_command_as_unknown(self) -> None:
        # Given a port at which nobody takes a connection
        with socket.socket() as silent:
            silent.bind(("127.0.0.1", 0))
            silent.listen()
            url = f"postgresql://u@127.0.0.1:{silent.getsockname()[1]}/x"
            done = subprocess.run(
                [sys.executable, "-m", "worker", "deserialize_status", "--nagios", "--timeout=0.3"],
                cwd=ROOT,
                env={**os.environ, "DATABASE_URL": url},
                capture_output=True,
                text=True,
                timeout=120,
            )

        assert done.returncode == nagios.UNKNOWN
        told = "MORANGO_CELERY UNKNOWN: It took longer than 0.3 s: the database doesn't answer.\n"
        assert done.stdout == told

    def test_process_ends_if_the_block_is_not_left_in_time(
        self, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
    ) -> None:
        ended = threading.Event()
        statuses: list[int] = []

        def note(status: int) -> None:
            statuses.append(status)
            ended.set()

        monkeypatch.setattr(os, "_exit", note)
        with ends_after(0.01, "too late", 1):
            assert ended.wait(60)
        assert statuses == [1]
        assert capfd.readouterr().err == "too late\n"

    def test_watching_ends_in_time_with_the_status_of_the_last_look(self, worker: Worker) -> None:
        completion.fail(new_run().pk, RuntimeError("no"))
        assert shown("--watch", "--timeout=0.05", "--interval=60")[0] == FAILED
