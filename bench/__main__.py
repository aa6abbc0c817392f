"""Measure, print, write and draw: ``python -m bench [--help]``."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path
from tempfile import TemporaryDirectory

from bench import results
from bench.databases import ENGINES, BenchError, Databases
from bench.report import table
from bench.rounds import Rounds
from bench.rows import ROWS
from worker import services

HOME = Path(__file__).parent


def main(arguments: Sequence[str] | None = None) -> int:
    """:returns: the exit status: 0 if every bar is met"""
    options = _parse(arguments)
    rows = [
        row
        for row in ROWS
        if (not options.row or row.name in options.row)
        and (not options.database or row.database in options.database)
        and (not options.models or row.models in options.models)
    ]
    if not rows:
        print("error: no row is named so", file=sys.stderr)
        return 2
    if options.setting:
        os.environ["BENCH_SETTINGS"] = _settings(options.setting)
    found = []
    try:
        with ExitStack() as stack:
            folder = Path(stack.enter_context(TemporaryDirectory(prefix="bench-")))
            databases = Databases(folder, stack.enter_context(services.postgres(durable=True)))
            stack.callback(databases.close)
            rounds = Rounds(databases, options.quick, _tell, options.repetitions)
            for result in rounds.results(rows):
                found.append(result)
                results.write(found, options.output)
    except (BenchError, services.ServiceError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    print(f"\n{table(found)}\n\nwritten to {options.output}")
    return 0 if all(result.meets_its_bars for result in found) else 1


def _tell(line: str) -> None:
    print(line, flush=True)


def _settings(given: Sequence[str]) -> str:
    return "{" + ", ".join(f'"{name}": {value}' for name, _, value in (s.partition("=") for s in given)) + "}"


def _parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m bench", description=__doc__)
    only = "only these (may be repeated)"
    parser.add_argument(
        "--row", action="append", choices=sorted({row.name for row in ROWS}), metavar="NAME", help=only
    )
    parser.add_argument("--database", action="append", choices=ENGINES, help=only)
    parser.add_argument("--models", action="append", choices=sorted({row.models for row in ROWS}), help=only)
    parser.add_argument("--quick", action="store_true", help="on little data, in less than three minutes")
    parser.add_argument("--repetitions", type=int, metavar="N", help="instead of each row's own number")
    parser.add_argument(
        "--setting",
        action="append",
        metavar="NAME=JSON",
        help="a key of MORANGO_CELERY for ours (may be repeated): BATCH_SIZE_RECORDS=5000",
    )
    parser.add_argument("--output", type=Path, default=HOME / "results.json", help="default: %(default)s")
    return parser.parse_args(arguments)


if __name__ == "__main__":
    sys.exit(main())
