"""Measure, print, write and draw: ``python -m bench [--help]``."""

from __future__ import annotations

import argparse
import json
import os
import sys
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path
from tempfile import TemporaryDirectory

from bench import machine, plot, results
from bench.databases import ENGINES, BenchError, Databases
from bench.processes import stop_in_order
from bench.report import table
from bench.results import Result
from bench.scenario import Scenario
from bench.scenarios import SCENARIOS
from bench.schedule import Schedule
from worker import services
from worker.demo.databases import empty_redis
from worker.demo.processes import StepError

RESULTS = Path(__file__).parent / "results.json"


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure the chosen scenarios, print the table and write the results.

    :returns: the exit status: 1 if a threshold isn't met; with --quick, thresholds are shown but not judged
    """
    options = _parse(arguments)
    scenarios = _chosen(options)
    if not scenarios:
        print("error: there is no such scenario; see --help", file=sys.stderr)
        return 2
    output: Path | None = options.output
    if output is None and not (options.scenario or options.database or options.models):
        output = RESULTS
    found: list[Result] = []
    try:
        for result in measure(scenarios, options.quick, options.repetitions, dict(options.setting)):
            found.append(result)
            if output is not None:  # each time, for it takes long
                results.write(found, output)
    except (BenchError, StepError, services.ServiceError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    print(f"\n{table(found)}")
    if output is not None:
        plot.draw(found, output.with_suffix(".png"))
        print(f"\nwritten to {output}, drawn in {output.with_suffix('.png').name}")
    return 0 if options.quick or all(result.meets_its_thresholds for result in found) else 1


def measure(
    scenarios: Sequence[Scenario], quick: bool, repetitions: int | None, settings: Mapping[str, object]
) -> Iterator[Result]:
    """Measure scenarios on servers of their own, or those that the environment names, and report progress.

    :param repetitions: instead of the scenarios' own, unless None
    :param settings: instead of those that ``MORANGO_CELERY`` has
    """
    load = os.getloadavg()[0]
    with ExitStack() as stack:
        folder = Path(stack.enter_context(TemporaryDirectory(prefix="bench-")))
        postgres_url = None
        if any(scenario.database == "postgresql" for scenario in scenarios):
            postgres_url = stack.enter_context(services.postgres(durable=True))
            if not postgres_url.startswith("postgres"):
                raise BenchError("DATABASE_URL names no PostgreSQL server. Unset it, and one is started.")
        redis_url = stack.enter_context(empty_redis())
        description = machine.describe(postgres_url, redis_url)
        _tell(description)
        if warning := machine.warning(load):
            _tell(warning)
        environ = {"REDIS_URL": redis_url, "BENCH_SETTINGS": json.dumps(settings)}
        databases = Databases(folder, postgres_url, environ)
        stack.callback(databases.close)
        with ThreadPoolExecutor() as pool:
            kinds = list(dict.fromkeys((scenario.models, scenario.database) for scenario in scenarios))
            list(pool.map(lambda kind: databases.migrate(*kind), kinds))
        yield from Schedule(databases, description, quick, _tell, repetitions).results(scenarios)


def _chosen(options: argparse.Namespace) -> list[Scenario]:
    return [
        scenario.with_records(options.records) if options.records else scenario
        for scenario in SCENARIOS
        if (not options.scenario or scenario.name in options.scenario)
        and (not options.database or scenario.database in options.database)
        and (not options.models or scenario.models in options.models)
        and (not options.quick or scenario.in_quick or options.scenario)
    ]


def _tell(line: str) -> None:
    print(line, flush=True)


def _setting(text: str) -> tuple[str, object]:
    name, _, value = text.partition("=")
    return name, json.loads(value)


def _parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    names = list(dict.fromkeys(scenario.name for scenario in SCENARIOS))
    parser = argparse.ArgumentParser(
        prog="python -m bench", description=__doc__, epilog=f"scenarios: {', '.join(names)}"
    )
    only = "only these (may be repeated); nothing is written then without --output"
    parser.add_argument("--scenario", action="append", choices=names, metavar="NAME", help=only)
    parser.add_argument("--database", action="append", choices=ENGINES, help=only)
    parser.add_argument(
        "--models", action="append", choices=sorted({scenario.models for scenario in SCENARIOS}), help=only
    )
    parser.add_argument("--quick", action="store_true", help="on few records, in less than three minutes")
    parser.add_argument("--records", type=int, metavar="N", help="instead of each scenario's own number")
    parser.add_argument("--repetitions", type=int, metavar="N", help="instead of each scenario's own number")
    parser.add_argument(
        "--setting",
        action="append",
        default=[],
        type=_setting,
        metavar="NAME=JSON",
        help="a key of MORANGO_CELERY, for ours (may be repeated): BATCH_SIZE_RECORDS=5000",
    )
    parser.add_argument("--output", type=Path, metavar="FILE", help="default: bench/results.json")
    return parser.parse_args(arguments)


if __name__ == "__main__":
    stop_in_order()
    sys.exit(main())
