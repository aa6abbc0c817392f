"""Workers that take messages, and alternate between work of their own and the database's.

A worker process has a core of its own, unless workers and database share a machine. The database has so
many cores, and is work-conserving: a request that finds all of them busy waits, first come, first served.
A message's work is cut in slices, as it is by its statements, so that many are at it by turns. Not
modelled: locks that workers wait for, disks and memory that slow down under load, and workers that die.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from math import ceil
from statistics import mean, quantiles

from simpy import Environment, Resource

from bench.simulation.broker import Broker, Work
from bench.simulation.demands import Demand, Demands
from bench.simulation.mix import SMALL_RECORDS, Sync
from morango_celery.messaging.priorities import STARTING, priority_of

SCHOOL = (0.01, 0.09, 0.75, 0.15)
"""The shares of a run's steps, each of which waits for the one before; as ``bench.data`` makes schools up."""


@dataclass(frozen=True)
class Site:
    """The machines of a cluster."""

    workers: int
    cores: int
    """The database's."""
    shared: bool = False
    """True if workers have these same cores, and no others."""
    by_size: bool = True
    """True if messages of small runs go first."""
    slices: int = 4
    steps: Sequence[float] = SCHOOL


@dataclass
class Outcome:
    """Results of a simulation."""

    records: int = 0
    batches: int = 0
    finished_at: float = 0.0
    database_seconds: float = 0.0
    """Busy time of the database's cores, all together."""
    waits: list[float] = field(default_factory=list)
    """Time that each slice waited for a core of the database."""
    latencies: list[tuple[int, float]] = field(default_factory=list)
    """The records of each sync, and its seconds from enqueued to completed."""

    @property
    def records_per_second(self) -> float:
        return self.records / self.finished_at

    @property
    def mean_wait(self) -> float:
        return mean(self.waits)

    def latency(self, share: float, smallest: int = 0, largest: int = SMALL_RECORDS) -> float:
        """Return the quantile of the latencies of a size: 0.5 is the median."""
        found = [seconds for size, seconds in self.latencies if smallest <= size <= largest]
        if len(found) < 2:
            return sum(found)
        return quantiles(found, n=100, method="inclusive")[round(share * 100) - 1]


def simulate(site: Site, demands: Demands, syncs: Iterable[Sync]) -> Outcome:
    """Let the site carry the syncs out, until none is left."""
    model = _Model(site, demands)
    model.environment.process(model.arrivals(syncs))
    for _ in range(site.workers):
        model.environment.process(model.worker())
    model.environment.run()
    return model.outcome


class _Model:
    def __init__(self, site: Site, demands: Demands) -> None:
        self.site, self.demands = site, demands
        self.environment = Environment()
        self.broker = Broker(self.environment, by_size=site.by_size)
        self.cores = Resource(self.environment, site.cores)
        self.outcome = Outcome()

    def arrivals(self, syncs: Iterable[Sync]) -> Work:
        for sync in syncs:
            if sync.at > self.environment.now:
                yield self.environment.timeout(sync.at - self.environment.now)
            self.broker.put(_Run(self, sync).start(), STARTING)

    def worker(self) -> Work:
        while True:
            work: Work = yield self.broker.get()
            yield from work

    def carry_out(self, demand: Demand) -> Work:
        part = demand.times(1 / self.site.slices)
        for _ in range(self.site.slices):
            if self.site.shared:
                yield from self.on_a_core(part.worker)
            elif part.worker:
                yield self.environment.timeout(part.worker)
            yield from self.on_a_core(part.database)
            if part.delay:
                yield self.environment.timeout(part.delay)
        self.outcome.database_seconds += demand.database

    def on_a_core(self, seconds: float) -> Work:
        if not seconds:
            return
        came = self.environment.now
        with self.cores.request() as core:
            yield core
            self.outcome.waits.append(self.environment.now - came)
            yield self.environment.timeout(seconds)


class _Run:
    def __init__(self, model: _Model, sync: Sync) -> None:
        self.model, self.sync = model, sync
        self.stages = iter(list(stages(sync.records, model.demands.batch_records, model.site.steps)))
        self.handed_out = 0
        self.open_batches = 0

    def start(self) -> Work:
        yield from self.model.carry_out(self.model.demands.run)
        if self.sync.records > self.model.demands.batch_records:
            yield from self.open_next_stage()
        else:  # all of it, by the message that starts it
            yield from self.model.carry_out(self.model.demands.planned.times(self.sync.records))
            next(self.stages, 0)
            self.open_batches = 1
            yield from self.batch(self.sync.records)

    def open_next_stage(self) -> Work:
        records = next(self.stages, 0)
        model, size = self.model, self.model.demands.batch_records
        if not records:
            now = model.environment.now
            model.outcome.records += self.sync.records
            model.outcome.finished_at = now
            model.outcome.latencies.append((self.sync.records, now - self.sync.at))
            return
        yield from model.carry_out(model.demands.planned.times(records))
        self.handed_out += records
        self.open_batches = ceil(records / size)
        for number in range(self.open_batches):
            batch = min(size, records - number * size)
            model.broker.put(self.batch(batch), priority_of(self.handed_out / size))

    def batch(self, records: int) -> Work:
        yield from self.model.carry_out(self.model.demands.record.times(records))
        self.model.outcome.batches += 1
        self.open_batches -= 1
        if not self.open_batches:
            yield from self.open_next_stage()


def stages(records: int, batch_records: int, steps: Sequence[float]) -> Iterable[int]:
    """Return the number of records of each stage: consecutive steps share one batch where they fit."""
    sizes = [round(records * share) for share in steps[:-1]]
    sizes.append(records - sum(sizes))
    together = 0
    for size in sizes:
        if together + size <= batch_records:
            together += size
            continue
        if together:
            yield together
        together = 0
        if size <= batch_records:
            together = size
        else:
            yield size
    if together:
        yield together
