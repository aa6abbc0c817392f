"""Kolibri devices of our own: a KOLIBRI_HOME, a database, and the processes that use them."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import subprocess
import urllib.request
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from itertools import count
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

import psycopg2

from tests.support.processes import ROOT, LoggedProcess
from worker import services

ENVIRONMENT = ROOT / ".venv-kolibri-server"
"""See `tests.kolibri.environment`: Kolibri with all that its wheel brings along."""

PLUG_IN = "morango_celery.contrib.kolibri"
WORKER = ("-m", "morango_celery.worker", "-A", f"{PLUG_IN}.worker")

ACCOUNT, PASSWORD = "admin", "for-tests-only"

SLOW_SECONDS = 300
"""Time limit for steps that take half a minute on a machine at rest."""

_numbers = count(1)


@dataclass(frozen=True)
class Installation:
    """A device that a folder and a database make."""

    home: Path
    database_url: str = ""
    """URL of the PostgreSQL database; SQLite's files are in the folder."""
    settings: Mapping[str, str] = field(default_factory=dict)
    """More environment variables, for all its processes."""

    @property
    def environ(self) -> dict[str, str]:
        # Not what this process has been told of databases, brokers and settings
        return {
            **{name: os.environ[name] for name in ("PATH", "LANG", "TMPDIR") if name in os.environ},
            "PYTHONPATH": str(ROOT),  # for settings modules of ours
            "HOME": str(self.home),
            "KOLIBRI_HOME": str(self.home),
            "KOLIBRI_DISABLE_PING": "True",
            "KOLIBRI_ZEROCONF_ENABLED": "False",
            "KOLIBRI_LISTEN_ADDRESS": "127.0.0.1",
            "NO_PROXY": "127.0.0.1",
            **_database_options(self.database_url),
            **self.settings,
        }

    def copy(self, **settings: str) -> Installation:
        """One like it, with the same content; `settings` are more environment variables."""
        home = self.home.with_name(f"{self.home.name}-{next(_numbers)}")
        shutil.copytree(self.home, home)
        url = self.database_url
        if url:
            template, name = urlsplit(url).path.lstrip("/"), home.name.replace("-", "_")
            _execute(url, f"CREATE DATABASE {name} TEMPLATE {template}")
            url = _named(url, name)
        return Installation(home, url, {**self.settings, **settings})

    def command(self, name: str, *arguments: str, may_fail: bool = False) -> str:
        """Run a program of the environment to its end, and return its output.

        :param may_fail: True to return the output of a program that failed, too
        :raises RuntimeError: it failed; the message is what it printed
        """
        done = subprocess.run(
            [str(ENVIRONMENT / "bin" / name), *arguments],
            cwd=ROOT,
            env=self.environ,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            stdin=subprocess.DEVNULL,
            text=True,
        )
        if done.returncode and not may_fail:
            raise RuntimeError(f"{name} {' '.join(arguments)} failed:\n{done.stdout[-6000:]}")
        return done.stdout

    def manage(self, *arguments: str) -> str:
        return self.command("kolibri", "manage", *arguments)

    def act(self, name: str, *arguments: str) -> None:
        """Perform that act of `tests.kolibri.plug_in.people`."""
        self.command("python", "-m", "tests.kolibri.plug_in.people", name, *arguments)

    def snapshot(self) -> dict[str, Any]:
        """See `tests.kolibri.plug_in.snapshot`."""
        file = self.home / "snapshot.json"
        self.command("python", "-m", "tests.kolibri.plug_in.snapshot", str(file))
        found: dict[str, Any] = json.loads(file.read_text(encoding="utf-8"))
        return found

    def runs(self) -> list[dict[str, Any]]:
        """Return the ledger's state of each run, the newest first."""
        # Its status tells monitors of failed runs, and of workers that a scenario has ended
        told = self.command("kolibri", "manage", "deserialize_status", "--json", may_fail=True)
        *_, line = told.strip().splitlines()
        runs: list[dict[str, Any]] = json.loads(line)["runs"]
        return runs

    def start(self, name: str, *arguments: str) -> LoggedProcess:
        """Start a program of the environment."""
        log = self.home.with_name(f"{self.home.name}-{name}-{next(_numbers)}.log")
        command = [str(ENVIRONMENT / "bin" / name), *arguments]
        return LoggedProcess(command, log, self.environ, as_in_container=True)

    def sync_with(self, url: str, *options: str) -> LoggedProcess:
        """Start a sync, which pulls and pushes unless options say otherwise."""
        login = ("--username", ACCOUNT, "--password", PASSWORD, "--noninteractive")
        return self.start("kolibri", "manage", "sync", "--baseurl", url, *login, *options)

    @contextlib.contextmanager
    def server(self) -> Iterator[tuple[str, LoggedProcess]]:
        """Yield a server, from the moment it answers; its URL and process."""
        port, zip_port = services.free_port(), services.free_port()
        process = self.start("kolibri", "start", "--foreground", f"--port={port}", f"--zip-port={zip_port}")
        url = f"http://127.0.0.1:{port}"
        try:
            process.wait_until(lambda: _answers(f"{url}/api/public/info/"), "answering", SLOW_SECONDS)
            yield url, process
        finally:
            process.stop(timeout_seconds=30)

    @contextlib.contextmanager
    def worker(self, *options: str) -> Iterator[LoggedProcess]:
        """Yield a worker, from the moment it is ready."""
        arguments = (*WORKER, "--loglevel=INFO", "--concurrency=2", *options)
        process = self.start("python", *arguments)
        try:
            process.wait_for_log(" ready.", SLOW_SECONDS)
            yield process
        finally:
            process.stop()


def new_installation(home: Path, postgres_url: str = "") -> Installation:
    """Return an empty installation, on a new database of the PostgreSQL at the URL, or on SQLite."""
    home.mkdir()
    if not postgres_url:
        return Installation(home)
    name = f"{home.name}_{os.getpid()}"
    _execute(postgres_url, f"CREATE DATABASE {name}")
    return Installation(home, _named(postgres_url, name))


def _database_options(url: str) -> dict[str, str]:
    if not url:
        return {"KOLIBRI_DATABASE_ENGINE": "sqlite"}
    parts = urlsplit(url)
    return {
        "KOLIBRI_DATABASE_ENGINE": "postgres",
        "KOLIBRI_DATABASE_NAME": parts.path.lstrip("/"),
        "KOLIBRI_DATABASE_USER": unquote(parts.username or ""),
        "KOLIBRI_DATABASE_PASSWORD": unquote(parts.password or ""),
        "KOLIBRI_DATABASE_HOST": unquote(parts.hostname or ""),
        "KOLIBRI_DATABASE_PORT": str(parts.port or 5432),
    }


def _named(url: str, name: str) -> str:
    return urlsplit(url)._replace(path=f"/{name}").geturl()


def _execute(url: str, statement: str) -> None:
    connection = psycopg2.connect(_named(url, "postgres"))
    connection.autocommit = True  # databases are not made in transactions
    try:
        connection.cursor().execute(statement)
    finally:
        connection.close()


def _answers(url: str) -> bool:
    try:
        with urllib.request.urlopen(url, timeout=10) as response:
            return bool(response.status == 200)
    except OSError:
        return False
