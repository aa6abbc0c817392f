"""Compare ours with Morango's function on Kolibri's data: ``python -m tests.kolibri [--help]``."""

from __future__ import annotations

import argparse
import os
import sys
import time
from collections import deque
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path
from tempfile import TemporaryDirectory

from tests.kolibri import report
from tests.kolibri.cases import Outcomes, every_case, start
from tests.kolibri.compare import Outcome
from tests.kolibri.databases import Databases, Postgresql, Sqlite, run_module
from tests.kolibri.deviations import undocumented
from tests.kolibri.plug_in import __main__ as plug_in
from tests.kolibri.scenarios import SCENARIOS
from tests.kolibri.verdict import UNEXPLAINED, judge, judge_order
from worker import services

ENGINES = ("sqlite", "postgresql")

PLUG_IN = "--plug-in"


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the comparisons, print them as they finish, and return the exit status: 0 if all hold."""
    arguments = list(sys.argv[1:] if arguments is None else arguments)
    if PLUG_IN in arguments:
        arguments.remove(PLUG_IN)
        return plug_in.main(arguments)
    options = _parse(arguments)
    if options.without_equivalents:
        os.environ["WITHOUT_EQUIVALENTS"] = "1"
    started = time.monotonic()
    with ExitStack() as stack:
        folder = Path(stack.enter_context(TemporaryDirectory(prefix="morango-celery-kolibri-")))
        kinds: list[Databases] = []
        if "sqlite" in options.engine:
            kinds.append(Sqlite(folder))
        if "postgresql" in options.engine:
            kinds.append(Postgresql(folder, stack.enter_context(services.postgres())))
        for databases in kinds:
            stack.callback(databases.remove)
        pool = stack.enter_context(ThreadPoolExecutor(os.cpu_count()))
        stack.callback(pool.shutdown, cancel_futures=True)
        print("migrating Kolibri's databases ...", flush=True)
        list(pool.map(lambda databases: databases.migrate(), kinds))
        with kinds[0].copy() as environ:
            if not options.without_equivalents:  # they are about these
                run_module("tests.kolibri.other_versions", environ=environ)
                run_module("tests.kolibri.field_values", environ=environ)
        scenarios = [scenario for scenario in SCENARIOS if scenario.name in options.scenario]
        cases = every_case(kinds, scenarios)
        holds = compare_all(deque(start(case, pool, folder, ours=options.ours) for case in cases))
    print(f"\n{'all comparisons hold' if holds else 'NOT AS MORANGO'} ({time.monotonic() - started:.0f} s)")
    return 0 if holds else 1


def compare_all(cases: deque[Outcomes]) -> bool:
    """Judge and print each case, then the tables over all of them; return whether all hold.

    Takes the cases out of `cases`: an outcome is a whole database, too much to keep all of them.
    """
    judged: list[report.Judged] = []
    shown: set[str] = set()
    recorded: Outcome | None = None
    while cases:
        made = cases.popleft()
        case, morango, ours = made.case, made.morango.result(), made.ours.result()
        if recorded is None or case.seed == case.scenario.orders[0]:
            recorded = ours
        verdict = judge(morango, ours)
        if ours.implementation == "ours":
            verdict.complaints += judge_order(recorded, ours)
        print(report.one(case, morango, ours, verdict, shown), flush=True)
        judged.append(report.Judged.of(case, morango, ours, verdict))
    print(f"\n{report.models(judged)}\n\n{report.cases(judged)}")
    names = {name for row in judged for name in row.verdict.deviations} - {UNEXPLAINED}
    missing = undocumented(names)
    for name in missing:
        print(f"docs/fidelity.md has no line with the anchor {name!r}")
    return not missing and all(row.verdict.holds for row in judged)


def _parse(arguments: Sequence[str]) -> argparse.Namespace:
    names = [scenario.name for scenario in SCENARIOS]
    parser = argparse.ArgumentParser(
        prog="python -m tests.kolibri",
        description=__doc__,
        epilog="scenarios:\n" + "\n".join(f"  {s.name:<20} {s.about}" for s in SCENARIOS),
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    only = "only this one (may be repeated)"
    parser.add_argument("--scenario", action="append", choices=names, metavar="NAME", help=only)
    parser.add_argument(
        "--without-equivalents", action="store_true", help="run the models' own code for each record"
    )
    parser.add_argument("--engine", action="append", choices=ENGINES, help=only)
    parser.add_argument(
        "--ours",
        default="ours",
        choices=["ours", "morango"],
        help="'morango' compares Morango with itself, to try the comparison",
    )
    parser.add_argument(
        PLUG_IN, action="store_true", help="try the plug-in for Kolibri instead (--plug-in --help: how)"
    )
    options = parser.parse_args(arguments)
    options.scenario = options.scenario or names
    options.engine = options.engine or list(ENGINES)
    return options


if __name__ == "__main__":
    sys.exit(main())
