"""A copy of the project to break, and pytest in it."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from tests.mutations.mutation import Database, Mutation

SECONDS_PER_TEST = 60
_NOT_PASSED_ON = {"DATABASE_URL", "REDIS_URL", "DJANGO_SETTINGS_MODULE"}
"""Each pytest starts servers of its own: two must not share a test database."""
_OURS = {
    # No bytecode: that of a file which changes twice in one second would be taken for the new one's
    "PYTHONDONTWRITEBYTECODE": "1",
    "COLUMNS": "400",
    "PARITY_BATCH_SIZES": "1000 3 1",
}

_FAILED = re.compile(r"^FAILED (.+?)(?: - .*)?$", re.MULTILINE)


@dataclass(frozen=True)
class TestRun:
    """The result of a pytest run."""

    __test__ = False

    status: int
    failed: str | None
    """The first test that failed."""
    output: str

    @property
    def passed(self) -> bool:
        return self.status == 0


class Copy:
    """A copy of the project's files as the working tree has them, in a folder of its own."""

    def __init__(self, project: Path, folder: Path) -> None:
        self.folder = folder
        listed = subprocess.run(
            ["git", "ls-files", "--cached", "--others", "--exclude-standard", "-z"],
            cwd=project,
            check=True,
            capture_output=True,
            text=True,
        )
        for name in set(filter(None, listed.stdout.split("\0"))):
            if (project / name).is_file():  # else deleted, but not in the index
                (folder / name).parent.mkdir(parents=True, exist_ok=True)
                shutil.copy(project / name, folder / name)

    def test(self, tests: Iterable[str], database: Database) -> TestRun:
        """Run tests until the first one fails.

        :param tests: as pytest takes them, below ``tests/``
        """
        kept = {name: value for name, value in os.environ.items() if name not in _NOT_PASSED_ON}
        done = subprocess.run(
            [
                *(sys.executable, "-m", "pytest", "-x", "-q", f"--database={database}"),
                *("-p", "no:cacheprovider", "--tb=short", f"--timeout={SECONDS_PER_TEST}"),
                *(f"tests/{test}" for test in tests),
            ],
            cwd=self.folder,
            env={**kept, **_OURS, "PYTHONPATH": str(self.folder)},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            errors="replace",
            check=False,
        )
        failed = _FAILED.search(done.stdout)
        return TestRun(done.returncode, failed[1] if failed else None, done.stdout)

    def test_mutated(self, mutation: Mutation) -> TestRun:
        """Run the mutation's tests while the rule is broken.

        :raises OutOfDateError: the mutation doesn't fit the code
        """
        file = self.folder / "morango_celery" / mutation.path
        broken = mutation.mutated(self.folder)
        whole = file.read_text()
        file.write_text(broken)
        try:
            return self.test(mutation.tests, mutation.database)
        finally:
            file.write_text(whole)
