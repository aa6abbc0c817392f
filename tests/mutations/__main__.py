"""Break one rule of the pipeline after another, and see a test fail each time.

A rule that can be broken without a test that notices has none.
"""

from __future__ import annotations

import argparse
import queue
import sys
import time
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import get_args

from typing_extensions import override

from tests.mutations.catalogue import CATALOGUE
from tests.mutations.copies import Copy
from tests.mutations.mutation import Database, Mutation, OutOfDateError

PROJECT = Path(__file__).parents[2]


@dataclass(frozen=True)
class Verdict:
    mutation: Mutation
    caught: bool
    text: str
    seconds: float

    @override
    def __str__(self) -> str:
        return f"{self.mutation.rule}: {self.text} ({self.seconds:.0f} s)"


def main(
    arguments: Sequence[str] | None = None,
    catalogue: Sequence[Mutation] = CATALOGUE,
    project: Path = PROJECT,
) -> int:
    """Try the mutations, print each verdict, and return the exit status: 0 if every one was caught."""
    options = _parse(arguments, catalogue)
    chosen = [mutation for mutation in catalogue if not options.rule or mutation.rule in options.rule]
    if options.list:
        for mutation in chosen:
            print(f"{mutation.rule}  ({mutation.path}, {mutation.database})")
        return 0
    started = time.monotonic()
    with ExitStack() as stack:
        folders = [
            Path(stack.enter_context(TemporaryDirectory(prefix="morango-celery-mutants-")))
            for _ in range(options.jobs)
        ]
        copies = [Copy(project, folder) for folder in folders]
        missed = try_all(chosen, copies)
    if missed is None:
        return 1
    print(f"\n{len(chosen) - len(missed)} of {len(chosen)} caught ({time.monotonic() - started:.0f} s)")
    for verdict in missed:
        print(f"  not caught: {verdict.mutation.rule}")
    return 1 if missed else 0


def try_all(mutations: Sequence[Mutation], copies: Sequence[Copy]) -> list[Verdict] | None:
    """Try mutations, print each verdict as it is found, and return those that were not caught.

    :param copies: as many mutations are tried side by side
    :returns: None when the tests fail already while nothing is broken
    """
    free: queue.SimpleQueue[Copy] = queue.SimpleQueue()
    for copy in copies:
        free.put(copy)

    def hold(database: Database) -> bool:
        copy = free.get()
        try:
            return _holds(copy, mutations, database)
        finally:
            free.put(copy)

    def judge(mutation: Mutation) -> Verdict:
        copy = free.get()
        try:
            return _judge(copy, mutation)
        finally:
            free.put(copy)

    missed = []
    with ThreadPoolExecutor(len(copies)) as pool:
        if not all(list(pool.map(hold, get_args(Database)))):
            return None
        for future in as_completed([pool.submit(judge, mutation) for mutation in mutations]):
            verdict = future.result()
            print(verdict, flush=True)
            if not verdict.caught:
                missed.append(verdict)
    return missed


def _holds(copy: Copy, mutations: Iterable[Mutation], database: Database) -> bool:
    """Return True if the tests pass while nothing is broken; a failure would be taken for a catch."""
    tests = sorted({test for m in mutations if m.database == database for test in m.tests})
    if not tests:
        return True
    run = copy.test(tests, database)
    print(f"{'passed' if run.passed else 'FAILED'} while nothing is broken, on {database}", flush=True)
    if not run.passed:
        print(run.output)
    return run.passed


def _judge(copy: Copy, mutation: Mutation) -> Verdict:
    started = time.monotonic()
    try:
        run = copy.test_mutated(mutation)
    except OutOfDateError as error:
        return Verdict(mutation, caught=False, text=f"NOT TRIED, {error}", seconds=0)
    if run.status == 1 and run.failed:
        caught, text = True, f"caught by {run.failed}"
    elif run.passed:
        caught, text = False, "SURVIVED"
    else:  # it breaks more than its rule: nothing could be tested
        caught, text = False, f"NOT TRIED, pytest ended with status {run.status}:\n{run.output}"
    return Verdict(mutation, caught, text, time.monotonic() - started)


def _parse(arguments: Sequence[str] | None, catalogue: Sequence[Mutation]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m tests.mutations", description=__doc__)
    parser.add_argument("rule", nargs="*", help="break only these (default: all, one after another)")
    parser.add_argument("--list", action="store_true", help="show the rules and break none")
    parser.add_argument("--jobs", type=int, default=2, help="how many to try side by side (default: 2)")
    options = parser.parse_args(arguments)
    unknown = set(options.rule) - {mutation.rule for mutation in catalogue}
    if unknown:
        parser.error(f"no such rule: {', '.join(sorted(unknown))} (see --list)")
    return options


if __name__ == "__main__":
    sys.exit(main())
