"""A project under way: a database, a broker, and processes of any version on them."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from django.db import connection

from tests.support.processes import PATIENCE_SECONDS, ROOT, LoggedProcess
from worker import services

PATIENT_SECONDS = 3 * PATIENCE_SECONDS
"""Time limit for steps that wait for several processes to start, and for messages to go round."""

SETTINGS = """
from worker.settings import *

MORANGO_CELERY = {**MORANGO_CELERY, "BATCH_SIZE_RECORDS": 15, "STALLED_AFTER_SECONDS": 30}
"""
"""Settings of every version: many batches, and recovery every two seconds."""


@dataclass(frozen=True)
class Version:
    """A version of this package, ready to run."""

    name: str
    python: str
    folder: Path
    """Working directory of its processes, where the sample project lies."""


def present() -> Version:
    return Version("present", sys.executable, ROOT)


class Project:
    """All processes of one project, of whichever version, on one database and one broker."""

    def __init__(self, database_url: str, redis_url: str, folder: Path) -> None:
        """
        :param folder: for settings and logs
        """
        self._folder = folder
        self._started: list[tuple[str, LoggedProcess]] = []
        (folder / "upgrade_settings.py").write_text(SETTINGS)
        self.environment: Mapping[str, str] = {
            **os.environ,
            "DATABASE_URL": database_url,
            "REDIS_URL": redis_url,
            "DJANGO_SETTINGS_MODULE": "upgrade_settings",
            "PYTHONPATH": str(folder),
            "PYTHONDONTWRITEBYTECODE": "",
            "WORKER_SOFT_SHUTDOWN_SECONDS": "30",
            "NO_PROXY": "127.0.0.1",
        }

    def start(self, version: Version, *arguments: str, kind: str = "process") -> LoggedProcess:
        """Start ``python -m`` with these arguments, from a version."""
        name = f"{version.name}-{kind}-{len(self._started) + 1}"
        command = [version.python, "-m", *arguments]
        process = LoggedProcess(
            command,
            self._folder / f"{name}.log",
            self.environment,
            as_in_container=True,
            folder=version.folder,
        )
        self._started.append((name, process))
        return process

    def worker(self, version: Version) -> LoggedProcess:
        """Start a worker, and wait until it takes messages."""
        number = len(self._started) + 1
        process = self.start(
            version,
            *("morango_celery.worker", "-A", "worker", "--loglevel=INFO", "--concurrency=2"),
            *(f"--hostname={version.name}{number}@%h", "--without-gossip", "--without-mingle"),
            kind="worker",
        )
        process.wait_for_log(" ready.", PATIENT_SECONDS)
        return process

    def server(self, version: Version) -> tuple[LoggedProcess, str]:
        """Start a web server, and return it with its URL once it answers."""
        port = services.free_port()
        process = self.start(version, "worker", "runserver", "--noreload", f"127.0.0.1:{port}", kind="server")
        process.wait_for_log("Quit the server", PATIENT_SECONDS)
        return process, f"http://127.0.0.1:{port}/"

    def command(self, version: Version, *arguments: str, statuses: Sequence[int] = (0,)) -> str:
        """Carry out a management command, and return what it writes.

        :param statuses: exit statuses that are no failure
        """
        done = subprocess.run(
            [version.python, "-m", "worker", *arguments],
            cwd=version.folder,
            env=self.environment,
            check=False,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=PATIENT_SECONDS,
        )
        assert done.returncode in statuses, f"{version.name} {arguments}:\n{done.stdout}"
        return done.stdout

    def diagnosis(self, version: Version) -> str:
        """Return what a version's doctor says, which ends with 1 if it has found an error."""
        return self.command(version, "doctor", statuses=(0, 1))

    def logs(self, kind: str = "") -> dict[str, str]:
        """Return the logs of all processes so far, or of those of a kind, by name."""
        return {name: process.log() for name, process in self._started if f"-{kind}" in name}

    def end(self) -> None:
        for _, process in self._started:
            process.kill()


def states(table: str = "run") -> dict[str, int]:
    """Return the number of runs or batches by state. Other columns may not be there yet."""
    with connection.cursor() as cursor:
        cursor.execute(f"SELECT state, count(*) FROM morango_celery_{table} GROUP BY state")
        return dict(cursor.fetchall())


def unfinished() -> list[tuple[int, str]]:
    """Return the runs that have not ended, or are not finalized, with their states."""
    with connection.cursor() as cursor:
        cursor.execute(
            "SELECT id, state FROM morango_celery_run WHERE NOT finalized"
            " OR state NOT IN ('completed', 'failed', 'cancelled') ORDER BY id"
        )
        return list(cursor.fetchall())
