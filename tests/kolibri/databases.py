"""Fresh, migrated databases for one process each: migrated once, then copied."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from itertools import count
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Protocol
from urllib.parse import unquote, urlsplit

import psycopg2


class Databases(Protocol):
    """A source of databases, as the environment variables that make Kolibri use one."""

    name: str

    def migrate(self) -> None:
        """Build the database that the others are copies of; some 20 seconds."""

    def copy(self) -> AbstractContextManager[Mapping[str, str]]:
        """Give a database of its own to the block, and remove it afterwards; safe from several threads."""

    def remove(self) -> None:
        """Remove the databases of `migrate`."""


class Sqlite:
    """Databases are files in KOLIBRI_HOME."""

    name = "sqlite"

    def __init__(self, folder: Path) -> None:
        self._home = folder / "sqlite"

    def migrate(self) -> None:
        self._home.mkdir()
        run_module("tests.kolibri.migrate", environ=self._environ(self._home))

    @contextmanager
    def copy(self) -> Iterator[Mapping[str, str]]:
        with _home_like(self._home) as home:
            yield self._environ(home)

    def remove(self) -> None:
        shutil.rmtree(self._home, ignore_errors=True)

    def _environ(self, home: Path) -> dict[str, str]:
        return {"KOLIBRI_HOME": str(home), "KOLIBRI_DATABASE_ENGINE": "sqlite"}


class Postgresql:
    """Databases are copies that the server at `url` makes of a template."""

    name = "postgresql"

    def __init__(self, folder: Path, url: str) -> None:
        self._home = folder / "postgresql"
        self._url = url
        self._template = f"kolibri_{os.getpid()}"
        self._numbers = count(1)

    def migrate(self) -> None:
        self._home.mkdir()
        self._execute(f"CREATE DATABASE {self._template}")
        run_module("tests.kolibri.migrate", environ=self._environ(self._home, self._template))

    @contextmanager
    def copy(self) -> Iterator[Mapping[str, str]]:
        name = f"{self._template}_{next(self._numbers)}"
        self._execute(f"CREATE DATABASE {name} TEMPLATE {self._template}")
        try:
            with _home_like(self._home) as home:
                yield self._environ(home, name)
        finally:
            self._execute(f"DROP DATABASE {name}")

    def remove(self) -> None:
        self._execute(f"DROP DATABASE IF EXISTS {self._template}")
        shutil.rmtree(self._home, ignore_errors=True)

    def _environ(self, home: Path, name: str) -> dict[str, str]:
        url = urlsplit(self._url)
        return {
            "KOLIBRI_HOME": str(home),
            "KOLIBRI_DATABASE_ENGINE": "postgres",
            "KOLIBRI_DATABASE_NAME": name,
            "KOLIBRI_DATABASE_USER": unquote(url.username or ""),
            "KOLIBRI_DATABASE_PASSWORD": unquote(url.password or ""),
            "KOLIBRI_DATABASE_HOST": unquote(url.hostname or ""),
            "KOLIBRI_DATABASE_PORT": str(url.port or 5432),
        }

    def _execute(self, statement: str) -> None:
        connection = psycopg2.connect(self._url)
        connection.autocommit = True  # databases are not made in transactions
        try:
            connection.cursor().execute(statement)
        finally:
            connection.close()


def run_module(*arguments: str, environ: Mapping[str, str]) -> None:
    """Run ``python -m arguments`` with Kolibri's environment variables `environ`.

    :raises RuntimeError: it failed; the message is the end of what it printed
    """
    done = subprocess.run(
        [sys.executable, "-m", *arguments],
        env={**os.environ, "DJANGO_SETTINGS_MODULE": "tests.kolibri.settings", **environ},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    if done.returncode:
        raise RuntimeError(f"{' '.join(arguments)} failed:\n{done.stdout[-6000:]}")


@contextmanager
def _home_like(template: Path) -> Iterator[Path]:
    with TemporaryDirectory(dir=template.parent) as folder:
        yield Path(shutil.copytree(template, f"{folder}/home"))
