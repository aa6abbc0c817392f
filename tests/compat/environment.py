"""Environments with another release of Django, or another driver: the locked ones, and one package exchanged.

Morango 0.8.15 pins Django below 4; nobody resolves dependencies here, so that nobody minds. For a newer
Django it is changed as a fork of it would be.
"""

from __future__ import annotations

import hashlib
import os
import re
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

PROJECT = Path(__file__).parents[2]
LOCK = PROJECT / "requirements.lock"
OTHERS = Path(__file__).with_name("requirements.lock")
"""Releases that take the place of locked ones, or come beside them, with their hashes."""

Changes = Mapping[str, Mapping[str, str]]
"""Texts of Morango's, and what takes their places, by file."""

FORK: Changes = {
    # Since Django 4, bulk_update() adds up what update() returns
    "morango/models/query.py": {"super(SyncableModelQuerySet": "return super(SyncableModelQuerySet"},
    # Django 5 has this name no more
    "morango/migrations/0007_auto_20171018_1615.py": {
        "from django.utils.timezone import utc": "from datetime import UTC as utc",
    },
}
"""Changes that a fork of Morango needs for a newer Django."""

FORK_FOR_PSYCOPG3: Changes = {
    "morango/sync/backends/postgres.py": {
        "from psycopg2.extensions import TransactionRollbackError": (
            "from psycopg.errors import DeadlockDetected, SerializationFailure\n"
            "        TransactionRollbackError = (DeadlockDetected, SerializationFailure)"
        ),
        "from psycopg2.extensions import ISOLATION_LEVEL_REPEATABLE_READ": (
            "from psycopg import IsolationLevel\n"
            "        ISOLATION_LEVEL_REPEATABLE_READ = IsolationLevel.REPEATABLE_READ"
        ),
        "connection.set_session(isolation_level=ISOLATION_LEVEL_REPEATABLE_READ, autocommit=False)": (
            "connection.isolation_level = ISOLATION_LEVEL_REPEATABLE_READ"
        ),
        "connection.set_session(isolation_level=existing_isolation_level)": (
            "connection.isolation_level = existing_isolation_level"
        ),
        "self.connection.connection.set_session(autocommit=existing_autocommit)": "pass",
    },
}
"""Changes that it needs for psycopg 3: Morango asks psycopg2 for the isolation of its transactions."""


@dataclass(frozen=True)
class Environment:
    """Environment for one release of Django."""

    django: str
    """Release, such as ``5.2.19``; that of the lock is left as it is."""
    psycopg3: bool = False

    @property
    def name(self) -> str:
        series = self.django.rpartition(".")[0]
        return f"Django {series}{', psycopg 3' if self.psycopg3 else ''}"

    @property
    def folder(self) -> Path:
        python = f"{sys.version_info.major}.{sys.version_info.minor}"
        driver = "-psycopg3" if self.psycopg3 else ""
        return PROJECT / f".venv-compat-{python}-{self.django.rpartition('.')[0]}{driver}"

    @property
    def python(self) -> str:
        return str(self.folder / "bin" / "python")

    def build(self) -> None:
        """Build it, unless it is there already, made from the same locks."""
        chosen = list(self._entries())
        state = hashlib.sha256(
            "".join([LOCK.read_text("utf-8"), *chosen, str(self._fork())]).encode()
        ).hexdigest()
        stamp = self.folder / ".installed"
        if stamp.exists() and stamp.read_text("utf-8") == state:
            return
        print(f"Building {self.folder.name}, once; a minute or so", flush=True)
        uv = str(Path(sys.executable).with_name("uv"))
        _run(uv, "venv", "--quiet", "--clear", "--python", sys.executable, str(self.folder))
        install = (uv, "pip", "install", "--quiet", "--python", self.python, "--no-deps")
        _run(*install, "--require-hashes", "--requirement", str(LOCK))
        if chosen:
            requirements = self.folder / "chosen.txt"
            requirements.write_text("".join(chosen), "utf-8")
            _run(*install, "--require-hashes", "--requirement", str(requirements))
        _run(*install, "--no-build-isolation", "--editable", str(PROJECT))
        self._fork_morango()
        stamp.write_text(state, "utf-8")

    def _fork(self) -> Changes:
        """Return the changes of Morango that this environment needs: none with the locked Django."""
        return {**(FORK if any(self._entries()) else {}), **(FORK_FOR_PSYCOPG3 if self.psycopg3 else {})}

    def _fork_morango(self) -> None:
        (packages,) = self.folder.glob("lib/python*/site-packages")
        for name, changes in self._fork().items():
            content = (packages / name).read_text("utf-8")
            for text, other in changes.items():
                if text not in content:
                    raise SystemExit(f"{name} has no {text!r} any more. See tests/compat/environment.py.")
                content = content.replace(text, other)
            (packages / name).unlink()  # it may be the very file that uv keeps for all environments
            (packages / name).write_text(content, "utf-8")

    def _entries(self) -> list[str]:
        """Return the entries of `OTHERS` that this environment takes: version and hashes of a package."""
        entries = re.split(r"^(?=\w)", OTHERS.read_text("utf-8"), flags=re.MULTILINE)
        drivers = ("psycopg==", "psycopg-binary==") if self.psycopg3 else ()
        wanted = (f"django=={self.django} ", *drivers)
        return [entry for entry in entries if entry.startswith(wanted)]


def _run(*command: str) -> None:
    # MAKEFLAGS and the like of whoever runs this must not reach the builds of packages.
    environ = {key: value for key, value in os.environ.items() if not key.startswith("MAKE")}
    subprocess.run(command, check=True, env=environ)
