"""Demands calculated from probes, and the model held to them."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import NamedTuple

from bench import machine
from bench.databases import Databases, run
from bench.simulation.demands import Demand, Demands
from bench.simulation.mix import SMALL_RECORDS, Sync
from bench.simulation.model import Site, simulate
from bench.simulation.probe import Probe, Used
from worker import services
from worker.demo.databases import empty_redis

TOLERANCE = 0.3
"""Largest error of the model, as a share of the measurement, where a sync has the workers to itself."""

BESIDE_TOLERANCE = 0.55
"""Largest error for a small sync beside a large one. The model has it wait too little: it ignores the
processor time of Redis, of the waiting process, and of other work on the machine."""

BESIDE = 12
"""Number of small syncs that arrive in the model while the large one is carried out."""


class Comparison(NamedTuple):
    what: str
    model: float
    """Seconds."""
    measured: float
    tolerance: float = TOLERANCE

    @property
    def is_close(self) -> bool:
        return abs(self.model - self.measured) <= self.tolerance * self.measured


def measure(workers: list[int], records: int, tell: Callable[[str], None]) -> tuple[list[Probe], str]:
    """Return a probe for each number of workers, taken one after another, and the place where they were
    taken."""
    with ExitStack() as stack:
        folder = Path(stack.enter_context(TemporaryDirectory(prefix="bench-")))
        url = stack.enter_context(services.postgres(durable=True))
        redis_url = stack.enter_context(empty_redis())
        description = machine.describe(url, redis_url)
        tell(description)
        databases = Databases(folder, url, {"REDIS_URL": redis_url})
        stack.callback(databases.close)
        databases.migrate("school", "postgresql")
        probes = []
        for number in workers:
            tell(f"measuring {records:,} records with {number} worker process(es)")
            with databases.empty_copy("school", "postgresql") as environ:
                output = run(sys.executable, ("bench.simulation.probe", str(number), str(records)), environ)
            found = json.loads(output)
            used = {name: Used(**found[name]) for name in ("planning", "small", "large")}
            probes.append(Probe(**{**found, **used}))
    return probes, description


def least_disturbed(probes: Sequence[Probe]) -> Probe:
    return min(probes, key=lambda probe: probe.large.seconds)


def demands_of(probe: Probe, source: str) -> Demands:
    """Return the demands that explain a probe with one worker process: so much a run, and so much a
    record."""
    small, large, planning = map(_demand, (probe.small, probe.large, probe.planning))
    each = (large + small.times(-1)).times(1 / (probe.records - probe.small_records))
    planned = planning.times(1 / probe.records)
    return Demands(
        run=_positive(small + each.times(-probe.small_records)),
        planned=planned,
        record=_positive(each + planned.times(-1)),
        source=source,
    )


def compare(demands: Demands, probe: Probe) -> list[Comparison]:
    """Compare the model with a probe in which workers and database shared the machine's cores."""
    site = Site(probe.workers, len(os.sched_getaffinity(0)), shared=True)
    large = Sync(0.0, probe.records)
    alone = simulate(site, demands, [large]).finished_at
    small = simulate(site, demands, [Sync(0.0, probe.small_records)]).finished_at
    moments = (alone * (0.2 + 0.6 * number / BESIDE) for number in range(BESIDE))
    later = [Sync(moment, probe.small_records) for moment in moments]
    both = simulate(site, demands, [large, *later])
    named = f"{probe.workers} worker process(es): "
    return [
        Comparison(f"{named}{probe.records:,} records", alone, probe.large.seconds),
        Comparison(f"{named}{probe.small_records} records", small, probe.small.seconds),
        Comparison(
            f"{named}{probe.small_records} records beside {probe.records:,}",
            both.latency(0.5, largest=SMALL_RECORDS),
            probe.beside,
            BESIDE_TOLERANCE,
        ),
    ]


def _demand(used: Used) -> Demand:
    return Demand(used.worker, used.database, max(used.seconds - used.worker - used.database, 0.0))


def _positive(demand: Demand) -> Demand:
    return Demand(max(demand.worker, 0.0), max(demand.database, 0.0), max(demand.delay, 0.0))
