"""Databases that are the same at the start of each measurement: filled once, then copied.

On PostgreSQL, the server copies a template's files, after a checkpoint has written out its memory. On
SQLite, the file's folder is copied. So no implementation finds another one's dead rows, or its pages in a
cache.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal
from urllib.parse import unquote, urlsplit

import psycopg2
from typing_extensions import override

from bench.profiles import OVER_HTTP

PROJECT = Path(__file__).parent.parent

Engine = Literal["postgresql", "sqlite"]
ENGINES: tuple[Engine, ...] = ("postgresql", "sqlite")


@dataclass(frozen=True)
class Host:
    """A Django project whose models are deserialized: its interpreter, settings and way to migrate."""

    name: str
    python: str
    settings: str
    migrate: tuple[str, ...]

    def environ(self, engine: Engine, folder: Path, url: str) -> dict[str, str]:
        """
        :param folder: holds the database on SQLite, and whatever else the host writes
        :param url: of the database, on PostgreSQL
        """
        common = {"DJANGO_SETTINGS_MODULE": self.settings, "LOG_LEVEL": "CRITICAL", "DEBUG": "0"}
        if self.name == "school":
            address = url if engine == "postgresql" else f"sqlite:///{folder}/db.sqlite3"
            return {**common, "DATABASE_URL": address, "SECRET_KEY": "for-measurements-only"}
        if self.name == OVER_HTTP:
            return {"KOLIBRI_HOME": str(folder), "DATABASE_URL": url}
        common["KOLIBRI_HOME"] = str(folder)
        if engine == "sqlite":
            return {**common, "KOLIBRI_DATABASE_ENGINE": "sqlite"}
        parts = urlsplit(url)
        return {
            **common,
            "KOLIBRI_DATABASE_ENGINE": "postgres",
            "KOLIBRI_DATABASE_NAME": parts.path.removeprefix("/"),
            "KOLIBRI_DATABASE_USER": unquote(parts.username or ""),
            "KOLIBRI_DATABASE_PASSWORD": unquote(parts.password or ""),
            "KOLIBRI_DATABASE_HOST": unquote(parts.hostname or ""),
            "KOLIBRI_DATABASE_PORT": str(parts.port or 5432),
        }


HOSTS = {
    "school": Host(
        "school", sys.executable, "bench.settings", ("worker", "migrate", "--noinput", "--verbosity=0")
    ),
    "kolibri": Host(
        "kolibri", ".venv-kolibri/bin/python", "bench.kolibri_settings", ("tests.kolibri.migrate",)
    ),
    # What starts Kolibri's processes, in an environment of their own
    OVER_HTTP: Host(OVER_HTTP, sys.executable, "", ("bench.over_http",)),
}


@dataclass(frozen=True)
class Dataset:
    """Contents of a database before it is deserialized."""

    models: str
    """The host: a key of `HOSTS`."""
    database: Engine
    case: str
    """Kind of records: a key of ``bench.data.CASES``, or "kolibri"."""
    records: int

    @override
    def __str__(self) -> str:
        return f"{self.models}_{self.database}_{self.case}_{self.records}"


class Databases:
    """Builds databases and copies of them in `folder` and on the server at `url`."""

    def __init__(self, folder: Path, url: str | None, environ: Mapping[str, str]) -> None:
        """
        :param url: of a PostgreSQL server, on which the databases named ``bench_`` and our process id are
            ours; not needed for SQLite
        :param environ: further environment variables of the processes that work on the databases
        """
        self._folder = folder
        self._url = url
        self._common = environ
        self._built: set[str] = set()

    @contextmanager
    def copy(self, dataset: Dataset) -> Iterator[Mapping[str, str]]:
        """Yield a fresh copy, as the environment variables of a process that works on it."""
        self._build(dataset)
        host, engine = HOSTS[dataset.models], dataset.database
        try:
            yield self._derive(host, engine, str(dataset), "copy")
        finally:
            self._remove(engine, "copy")

    @contextmanager
    def empty_copy(self, models: str, engine: Engine) -> Iterator[Mapping[str, str]]:
        """Yield a fresh copy of a host's migrated database, likewise."""
        try:
            yield self._derive(HOSTS[models], engine, f"{models}_{engine}", "copy")
        finally:
            self._remove(engine, "copy")

    def forget(self, dataset: Dataset) -> None:
        """Remove the template of a dataset's copies."""
        if str(dataset) in self._built:
            self._remove(dataset.database, str(dataset))
            self._built.remove(str(dataset))

    def migrate(self, models: str, engine: Engine) -> None:
        """Build the empty database of a host, which the others are made from.

        Safe at the same time for another host or engine.
        """
        name = f"{models}_{engine}"
        self._folder.joinpath(name).mkdir()
        if engine == "postgresql":
            self._execute(f"CREATE DATABASE {self._name(name)}")
        host = HOSTS[models]
        run(host.python, host.migrate, self._environ(host, engine, name))
        self._built.add(name)

    def close(self) -> None:
        for name in sorted(self._built):
            self._remove("postgresql" if "_postgresql" in name else "sqlite", name)
        self._built.clear()

    def _build(self, dataset: Dataset) -> None:
        name = str(dataset)
        if name in self._built:
            return
        host, engine = HOSTS[dataset.models], dataset.database
        environ = self._derive(host, engine, f"{dataset.models}_{engine}", name)
        self._built.add(name)
        run(host.python, ("bench.load", dataset.models, dataset.case, str(dataset.records)), environ)
        if engine == "postgresql":
            self._execute("VACUUM ANALYZE", name)

    def _derive(self, host: Host, engine: Engine, source: str, target: str) -> dict[str, str]:
        shutil.copytree(self._folder / source, self._folder / target)
        if engine == "postgresql":
            self._execute(
                f"CREATE DATABASE {self._name(target)} TEMPLATE {self._name(source)} STRATEGY FILE_COPY"
            )
            self._execute("CHECKPOINT")
        else:
            os.sync()  # or the first implementation pays for writing the copy
        return self._environ(host, engine, target)

    def _remove(self, engine: Engine, name: str) -> None:
        shutil.rmtree(self._folder / name, ignore_errors=True)
        if engine == "postgresql":
            self._execute(f"DROP DATABASE IF EXISTS {self._name(name)} WITH (FORCE)")

    def _environ(self, host: Host, engine: Engine, name: str) -> dict[str, str]:
        url = self._address(name) if engine == "postgresql" else ""
        return {**self._common, **host.environ(engine, self._folder / name, url)}

    def _name(self, name: str) -> str:
        return f"bench_{os.getpid()}_{name}"

    def _address(self, name: str) -> str:
        return urlsplit(self._url or "")._replace(path=f"/{self._name(name)}").geturl()

    def _execute(self, statement: str, name: str | None = None) -> None:
        connection: Any = psycopg2.connect(self._address(name) if name else self._url)
        connection.autocommit = True  # databases are not made in transactions
        try:
            connection.cursor().execute(statement)
        finally:
            connection.close()


class BenchError(Exception):
    """A process of a measurement failed; the message is its output."""


def run(python: str, arguments: tuple[str, ...], environ: Mapping[str, str]) -> str:
    """Run ``python -m arguments`` and return its output.

    :param python: an interpreter, as seen from the project's folder
    :raises BenchError: it failed
    """
    process = subprocess.Popen(
        [str(PROJECT / python), "-m", *arguments],
        cwd=PROJECT,
        env={**os.environ, **environ},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        output, complaints = process.communicate()
    except BaseException:  # Ctrl-C, or SIGTERM: let it stop what it has started
        process.terminate()
        process.wait()
        raise
    if process.returncode:
        raise BenchError(f"{' '.join(arguments)} failed:\n{(output + complaints)[-6000:]}")
    return output
