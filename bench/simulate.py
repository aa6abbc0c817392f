"""Throughput and waiting of many workers and many syncs with one PostgreSQL: ``make simulate``, or
``--help``.

The model (``bench.simulation``) is fed by measurements of this machine.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from itertools import islice
from pathlib import Path
from statistics import mean

from bench.databases import BenchError
from bench.processes import stop_in_order
from bench.simulation.demands import Demands
from bench.simulation.measuring import compare, demands_of, least_disturbed, measure
from bench.simulation.mix import SMALL_RECORDS, Mix
from bench.simulation.model import Outcome, Site, simulate
from bench.simulation.picture import Line, draw
from worker import services

DEMANDS = Path(__file__).parent / "demands.json"
PICTURE = Path(__file__).parent.parent / "docs" / "develop" / "scaling.png"
WORKERS = (1, 2, 4, 16, 64, 250, 1000)
SYNCS = (1, 10, 100, 1_000, 10_000)
LOAD = 0.7
MEASURED = 3
"""Number of measurements; the least disturbed one counts."""
ARRIVING = 4_000
"""Number of syncs whose waiting is averaged."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the model, or hold it to this machine's measurements.

    :returns: the exit status: 1 if the model is off by more than the tolerance
    """
    options = _parse(arguments)
    try:
        if options.check:
            return _check(options)
        if options.measure or not options.demands.exists():
            probes, description = measure([1] * MEASURED, options.records, _tell)
            demands_of(least_disturbed(probes), description).write(options.demands)
    except (BenchError, services.ServiceError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    demands = Demands.read(options.demands)
    mix = Mix(options.median, options.sigma)
    _tell(f"measured on: {demands.source}")
    for name in ("run", "planned", "record"):
        demand = getattr(demands, name)
        worker, database, delay = (
            seconds * 1e6 for seconds in (demand.worker, demand.database, demand.delay)
        )
        _tell(
            f"microseconds a {name:8} worker {worker:10.1f}  database {database:10.1f}  delay {delay:10.1f}"
        )
    sizes = list(islice(mix.sizes(options.seed), 10_000))
    per_sync = demands.run + (demands.planned + demands.record).times(mean(sizes))
    limit = options.cores * mean(sizes) / per_sync.database
    _tell(
        f"{options.cores} cores of the database are busy at {limit:,.0f} records per second, which takes "
        f"{options.cores * per_sync.seconds / per_sync.database:.1f} worker processes or more"
    )
    throughput = _throughputs(demands, mix, options)
    latency = _latencies(demands, mix, per_sync.seconds, per_sync.database, options)
    draw(throughput, latency, limit, options.output)
    _tell(f"\ndrawn in {options.output.name}")
    return 0


def _throughputs(demands: Demands, mix: Mix, options: argparse.Namespace) -> dict[str, Line]:
    _tell("\nrecords per second (share of the database's cores), by syncs at the same time")
    _tell(f"{'workers':>8}" + "".join(f"{number:>18,}" for number in options.syncs))
    lines: dict[str, list[tuple[int, float]]] = {f"{number:,} syncs": [] for number in options.syncs}
    for workers in options.workers:
        cells = []
        for number, line in zip(options.syncs, lines.values(), strict=True):
            found = simulate(Site(workers, options.cores), demands, mix.at_once(number, options.seed))
            line.append((workers, found.records_per_second))
            busy = found.database_seconds / found.finished_at / options.cores
            cells.append(f"{found.records_per_second:>12,.0f} {busy:4.0%}")
        _tell(f"{workers:>8,}" + "".join(f"{cell:>18}" for cell in cells))
    return dict(lines)


def _latencies(
    demands: Demands, mix: Mix, seconds: float, database: float, options: argparse.Namespace
) -> dict[str, Line]:
    _tell(
        f"\nseconds until syncs are completed, at {LOAD:.0%} of what workers and database can do:"
        f" of up to {SMALL_RECORDS:,} records, median and 95 %; of more than 100,000, median"
    )
    _tell(f"{'workers':>8}{'small first':>32}{'first come, first served':>32}")
    lines: dict[str, list[tuple[int, float]]] = {"small first": [], "first come, first served": []}
    for workers in options.workers:
        rate = LOAD * min(workers / seconds, options.cores / database)
        syncs = mix.arriving(rate, ARRIVING, options.seed)
        cells = []
        for by_size, line in zip((True, False), lines.values(), strict=True):
            found = simulate(Site(workers, options.cores, by_size=by_size), demands, syncs)
            line.append((workers, found.latency(0.95)))
            cells.append(_times(found))
        _tell(f"{workers:>8,}" + "".join(f"{cell:>32}" for cell in cells))
    return dict(lines)


def _times(found: Outcome) -> str:
    large = found.latency(0.5, 100_000, sys.maxsize)
    return f"{found.latency(0.5):9.2f} {found.latency(0.95):9.2f} {large:9.1f}"


def _check(options: argparse.Namespace) -> int:
    probes, description = measure([1, 2], options.records, _tell)
    demands = demands_of(probes[0], description)
    comparisons = [each for probe in probes for each in compare(demands, probe)]
    width = max(len(each.what) for each in comparisons)
    _tell(f"\n{'seconds':{width}}{'model':>9}{'measured':>10}{'off by':>8}{'at most':>9}")
    for each in comparisons:
        off = each.model / each.measured - 1
        _tell(f"{each.what:{width}}{each.model:9.3f}{each.measured:10.3f}{off:+8.0%}{each.tolerance:9.0%}")
    close = all(each.is_close for each in comparisons)
    _tell("as close as it has to be" if close else "NOT as close as it has to be")
    return 0 if close else 1


def _tell(line: str) -> None:
    print(line, flush=True)


def _numbers(text: str) -> tuple[int, ...]:
    return tuple(int(number) for number in text.split(","))


def _parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m bench.simulate", description=__doc__)
    parser.add_argument("--measure", action="store_true", help="what the model is fed with, anew")
    parser.add_argument(
        "--check", action="store_true", help="hold the model to 1 and 2 workers, measured now"
    )
    parser.add_argument("--records", type=int, default=60_000, help="of the large syncs that are measured")
    parser.add_argument("--demands", type=Path, default=DEMANDS, metavar="FILE", help="bench/demands.json")
    parser.add_argument("--cores", type=int, default=16, help="of the database (default: 16)")
    parser.add_argument("--workers", type=_numbers, default=WORKERS, metavar="N,N", help="1 to 1,000")
    parser.add_argument("--syncs", type=_numbers, default=SYNCS, metavar="N,N", help="1 to 10,000 at once")
    parser.add_argument("--median", type=float, default=Mix.median_records, help="records of a sync")
    parser.add_argument("--sigma", type=float, default=Mix.sigma, help="of the logarithm of that")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument(
        "--output", type=Path, default=PICTURE, metavar="FILE", help="docs/develop/scaling.png"
    )
    return parser.parse_args(arguments)


if __name__ == "__main__":
    stop_in_order()
    sys.exit(main())
