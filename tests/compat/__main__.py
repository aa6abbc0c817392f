"""Runs tests with other releases of Django, its driver, and PostgreSQL: ``python -m tests.compat --help``.

It prints a row of a table for each run: the versions, the command that runs it again, pytest's last line.
"""

from __future__ import annotations

import argparse
import os
import re
import shlex
import subprocess
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from morango_celery.django_compat import CHECKED
from tests.compat.environment import PROJECT, Environment

RELEASES = {release.rpartition(".")[0]: release for release in CHECKED["Django"]}
"""Releases of Django by their series."""

TESTS = ("tests/unit", "tests/parity", "tests/integration", "tests/oplog")

PARITY: Mapping[str, Mapping[str, str]] = {
    "postgresql": {"PARITY_EXAMPLES": "4", "PARITY_BATCH_SIZES": "1000"},
    "sqlite": {"PARITY_EXAMPLES": "2", "PARITY_BATCH_SIZES": "3"},
}
"""Numbers of generated databases, as in ``make test``."""

OF_OTHERS = (
    # Migrations of Morango, and code of libraries, written for the Django before
    "ignore::DeprecationWarning:morango",
    "ignore::DeprecationWarning:rest_framework",
    "ignore::DeprecationWarning:mptt",
)
"""Filters for warnings of other packages about a Django that is newer than they are."""


@dataclass(frozen=True)
class Run:
    """One run of pytest."""

    environment: Environment
    database: str
    binaries: Path | None
    """Folder of a PostgreSQL's ``initdb`` and ``postgres``; None for the one in a wheel."""
    arguments: tuple[str, ...]

    def versions(self) -> str:
        if self.database == "sqlite":
            return f"{self.environment.name}, SQLite"
        if self.binaries is None:
            return f"{self.environment.name}, PostgreSQL of the wheel"
        told = subprocess.run([self.binaries / "postgres", "--version"], capture_output=True, text=True)
        return f"{self.environment.name}, PostgreSQL {told.stdout.split()[-1]}"

    def execute(self) -> tuple[bool, str]:
        """Return whether all tests passed, and pytest's last line."""
        filters = [option for each in OF_OTHERS for option in ("-W", each)]
        command = [self.environment.python, "-m", "pytest", "-q", f"--database={self.database}", *filters]
        environ = {**os.environ, **PARITY[self.database]}
        environ.pop("DATABASE_URL", None)
        if self.binaries is not None:
            environ["POSTGRES_BIN_DIR"] = str(self.binaries)
        print(f"\n{self.versions()}: {shlex.join([*command, *self.arguments])}", flush=True)
        with subprocess.Popen(
            [*command, *self.arguments], cwd=PROJECT, env=environ, stdout=subprocess.PIPE, text=True
        ) as process:
            assert process.stdout is not None
            last = ""
            for line in process.stdout:
                sys.stdout.write(line)
                last = line.strip() or last
        return process.returncode == 0, re.sub(r"^=+ | =+$", "", last)


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m tests.compat", description=__doc__)
    parser.add_argument("--django", nargs="+", choices=RELEASES, default=list(RELEASES), metavar="SERIES")
    parser.add_argument("--database", nargs="+", choices=PARITY, default=list(PARITY))
    parser.add_argument("--psycopg3", action="store_true", help="by psycopg 3, from Django 4.2 on")
    parser.add_argument(
        "--postgresql",
        nargs="+",
        type=Path,
        default=[None],
        metavar="FOLDER",
        help="folders with initdb and postgres; by default the one in a wheel",
    )
    parser.add_argument("--build", action="store_true", help="build the environments, and no more")
    parser.add_argument("tests", nargs="*", default=TESTS, help=f"for pytest (default: {' '.join(TESTS)})")
    chosen = parser.parse_args()
    rows = []
    failed = False
    for run in _runs(chosen):
        run.environment.build()
        if chosen.build:
            continue
        passed, last = run.execute()
        failed |= not passed
        rows.append(f"| {run.versions()} | {last} |")
    print("\n".join(["", *rows]))
    sys.exit(failed)


def _runs(chosen: argparse.Namespace) -> Iterator[Run]:
    for series in chosen.django:
        environment = Environment(RELEASES[series], psycopg3=chosen.psycopg3 and series != "3.2")
        for database in chosen.database:
            for binaries in chosen.postgresql if database == "postgresql" else [None]:
                yield Run(environment, database, binaries, tuple(chosen.tests))


if __name__ == "__main__":
    main()
