"""Time of a run in process, step by step: ``python -m bench.profile [--help]``.

One connection, so that nothing overlaps. Time that a step spends in another step counts for the other one.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections import Counter
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from functools import wraps
from pathlib import Path
from pkgutil import resolve_name
from tempfile import TemporaryDirectory
from typing import Any

from bench.databases import ENGINES, HOSTS, Databases, Dataset, run
from bench.processes import stop_in_order
from worker import services

STEPS = {
    "begin, serialize first": ("runs.inprocess", "start"),
    "plan the first stage": ("runs.producer", "advance"),
    "plan the others": ("runs.inprocess", "advance"),
    "claim": ("deserialization.claim", "claim"),
    "parse": ("deserialization.parse.Parse", "update"),
    "look up references": ("deserialization.parse.LoadForeignKeys", "update"),
    "validate": ("deserialization.validate.Validate", "update"),
    "write": ("deserialization.writing.GroupWriter", "write"),
    "delete": ("deserialization.sink.AppModelSink", "_delete"),
    "mark as clean, or leave dirty": ("deserialization.sql", "mark_processed"),
    "take the batch": ("runs.execution", "lock_open_batch"),
    "account for it": ("runs.execution", "record_result"),
}
"""The functions that are timed, by where they are called from, in the order of the table."""

REST = "everything else, commits included"


class Clock:
    """Seconds by step: inside of statements, and outside of them."""

    def __init__(self) -> None:
        self.database: Counter[str] = Counter()
        self.python: Counter[str] = Counter()
        self._steps = [REST]
        self._since = 0.0

    def begin(self) -> None:
        """Forget all counts so far."""
        self.database.clear()
        self.python.clear()
        self._since = time.perf_counter()

    def _count(self, seconds: Counter[str]) -> None:
        now = time.perf_counter()
        seconds[self._steps[-1]] += now - self._since  # type: ignore[assignment]  # typeshed: counts are whole
        self._since = now

    def timed(self, step: str, function: Callable[..., Any]) -> Callable[..., Any]:
        """Return the function, timed as this step from now on; time in other timed functions is theirs."""

        @wraps(function)
        def wrapped(*args: Any, **kwargs: Any) -> Any:
            self._count(self.python)
            self._steps.append(step)
            try:
                return function(*args, **kwargs)
            finally:
                self._count(self.python)
                self._steps.pop()

        return wrapped

    def executing(self, execute: Callable[..., Any], *arguments: Any) -> Any:
        """Around each statement, for ``connection.execute_wrapper``."""
        self._count(self.python)
        try:
            return execute(*arguments)
        finally:
            self._count(self.database)

    def end(self) -> None:
        """Count the time since the last step."""
        self._count(self.python)


def profile(models: str, case: str, records: int) -> Clock:
    """Return the times of one run over the records of the configured database."""
    from django.db import connection

    from bench.implementations import IMPLEMENTATIONS
    from bench.measurement import Order

    clock = Clock()
    for step, (place, name) in STEPS.items():
        owner = resolve_name(f"morango_celery.{place}")
        setattr(owner, name, clock.timed(step, getattr(owner, name)))
    with IMPLEMENTATIONS["ours"](Order("ours", models, case, records)) as work:
        connection.ensure_connection()
        with connection.execute_wrapper(clock.executing):
            clock.begin()
            work.carry_out(None)
            clock.end()
    return clock


def table(clock: Clock, records: int) -> str:
    """Microseconds a record of each step."""
    lines = [f"{'':36}{'database':>10}{'Python':>10}{'share':>8}"]
    total = sum(clock.database.values()) + sum(clock.python.values())
    for step in (*STEPS, REST):
        database, python = clock.database[step], clock.python[step]
        if database + python:
            lines.append(_line(step, database, python, total, records))
    lines.append(_line("all", sum(clock.database.values()), sum(clock.python.values()), total, records))
    return "\n".join(lines)


def _line(step: str, database: float, python: float, total: float, records: int) -> str:
    figures = [f"{seconds * 1e6 / records:>10.1f}" for seconds in (database, python)]
    return f"{step:36}{''.join(figures)}{(database + python) / total:>8.0%}"


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m bench.profile", description=__doc__)
    parser.add_argument("--database", choices=ENGINES, default="postgresql")
    parser.add_argument("--models", choices=sorted(HOSTS), default="school")
    parser.add_argument("--case", help="a key of bench.data.CASES (default: the mix of the models)")
    parser.add_argument("--records", type=int, default=50_000)
    parser.add_argument(
        "--without-equivalents", action="store_true", help="run the models' own code for each record"
    )
    options = parser.parse_args(arguments)
    case = options.case or options.models
    with ExitStack() as stack:
        folder = Path(stack.enter_context(TemporaryDirectory(prefix="bench-")))
        url = None
        if options.database == "postgresql":
            url = stack.enter_context(services.postgres(durable=True))
        settings = {"IN_PROCESS_CONCURRENCY": 1, "USE_EQUIVALENTS": not options.without_equivalents}
        databases = Databases(folder, url, {"BENCH_SETTINGS": json.dumps(settings)})
        stack.callback(databases.close)
        databases.migrate(options.models, options.database)
        dataset = Dataset(options.models, options.database, case, options.records)
        with databases.copy(dataset) as environ:
            words = ("bench.profile", "--measure", options.models, case, str(options.records))
            sys.stdout.write(run(HOSTS[options.models].python, words, environ))
    return 0


def _measure(models: str, case: str, records: str) -> None:
    import django

    django.setup()
    sys.stdout.write(table(profile(models, case, int(records)), int(records)) + "\n")


if __name__ == "__main__":
    stop_in_order()
    if sys.argv[1:2] == ["--measure"]:
        _measure(*sys.argv[2:])
    else:
        sys.exit(main())
