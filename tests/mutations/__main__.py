"""Undo one deviation from Morango after another, in a copy of the project, and see its test fail each time.

A deviation that can be undone without a test that notices has none. Arguments choose deviations by their
anchors in docs/fidelity.md.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterable, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import get_args

from tests.mutations.deviations import MUTATIONS
from tests.mutations.mutation import Database, Mutation, OutOfDateError
from tests.support.processes import ROOT

FAILED = re.compile(r"^FAILED (.+)$", re.MULTILINE)
ENVIRONMENT = {
    # A bytecode file would be taken for that of a source which changes twice in one second
    "PYTHONDONTWRITEBYTECODE": "1",
    "COLUMNS": "400",
}


def main(rules: Sequence[str], mutations: Sequence[Mutation] = MUTATIONS, project: Path = ROOT) -> str | None:
    """Print a verdict on each mutant, and return an error unless all were caught.

    :param rules: names of the chosen ones; without any, all
    """
    if unknown := set(rules) - {mutation.rule for mutation in mutations}:
        return f"error: no such deviation: {', '.join(sorted(unknown))}"
    chosen = [mutation for mutation in mutations if not rules or mutation.rule in rules]
    with TemporaryDirectory(prefix="morango-celery-mutants-") as name:
        folder = Path(name)
        copy(project, folder)
        for database in get_args(Database):  # a failure of sound code would be taken for a catch
            tests = sorted({test for m in chosen if m.database == database for test in m.tests})
            done = run(folder, tests, database)
            if tests and done.returncode:
                return f"{done.stdout}\nerror: tests fail on {database} before anything is mutated"
        missed = [mutation.rule for mutation in chosen if not catches(folder, mutation)]
    print(f"{len(chosen) - len(missed)} of {len(chosen)} caught")
    return f"error: not caught: {', '.join(missed)}" if missed else None


def copy(project: Path, folder: Path) -> None:
    """Copy the project's files as the working tree has them."""
    command = ["git", "ls-files", "--cached", "--others", "--exclude-standard", "-z"]
    listed = subprocess.run(command, cwd=project, check=True, capture_output=True, text=True)
    for name in filter(None, listed.stdout.split("\0")):
        if (project / name).is_file():  # else deleted, but not in the index
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(project / name, folder / name)


def catches(folder: Path, mutation: Mutation) -> bool:
    """Return True if a test fails in the mutated copy, and print the verdict."""
    try:
        mutated = mutation.mutated(folder)
    except OutOfDateError as error:
        print(f"{mutation.rule}: NOT TRIED, {error}", flush=True)
        return False
    file = folder / "morango_celery" / mutation.path
    sound = file.read_text()
    file.write_text(mutated)
    try:
        done = run(folder, mutation.tests, mutation.database)
    finally:
        file.write_text(sound)
    failed = FAILED.search(done.stdout)
    if done.returncode == 1 and failed:
        print(f"{mutation.rule}: caught by {failed[1]}", flush=True)
        return True
    # With another status, it breaks more than its rule: nothing could be tested
    verdict = (
        f"NOT TRIED, pytest's status is {done.returncode}:\n{done.stdout}" if done.returncode else "SURVIVED"
    )
    print(f"{mutation.rule}: {verdict}", flush=True)
    return False


def run(folder: Path, tests: Iterable[str], database: Database) -> subprocess.CompletedProcess[str]:
    """Run tests until the first one fails, with database servers of their own."""
    kept = {name: value for name, value in os.environ.items() if not name.endswith("_URL")}
    return subprocess.run(
        [
            *(sys.executable, "-m", "pytest", "-x", "-q", f"--database={database}"),
            *("-p", "no:cacheprovider", "--tb=short"),
            *(f"tests/{test}" for test in tests),
        ],
        cwd=folder,
        env={**kept, **ENVIRONMENT, "PYTHONPATH": str(folder)},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        errors="replace",
        check=False,
    )


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
