"""The model's arithmetic: known results of queueing theory, and no work lost, done twice, or waited with."""

from __future__ import annotations

import json
import random
from itertools import islice, pairwise
from math import exp
from statistics import mean, median
from typing import Any

import pytest

from bench import simulate as command
from bench.simulation.broker import Broker
from bench.simulation.demands import Demand, Demands
from bench.simulation.measuring import demands_of
from bench.simulation.mix import Mix, Sync
from bench.simulation.model import SCHOOL, Outcome, Site, simulate, stages
from bench.simulation.probe import Probe, Used
from morango_celery.messaging.priorities import PRIORITIES, priority_of
from morango_celery.worker.priorities import READS_PER_TURN

NOTHING = Demand()
PLENTY = 400
"""Number of workers of which none is ever waited for."""
ONE_BATCH = (1.0,)
CUSTOMERS = 20_000


def at_the_database(seconds_per_record: float, cores: int, syncs: list[Sync]) -> Outcome:
    """Only the database has anything to do, a batch a sync."""
    demands = Demands(NOTHING, NOTHING, Demand(database=seconds_per_record), batch_records=10**9)
    return simulate(Site(PLENTY, cores, slices=1, steps=ONE_BATCH), demands, syncs)


def poisson(rate: float, sizes: list[int]) -> list[Sync]:
    chance, at, syncs = random.Random(7), 0.0, []
    for size in sizes:
        at += chance.expovariate(rate)
        syncs.append(Sync(at, size))
    return syncs


def exponential(seed: int) -> list[int]:
    """Sizes of 10,000 records on average."""
    chance = random.Random(seed)
    return [max(1, round(chance.expovariate(1) * 10_000)) for _ in range(CUSTOMERS)]


@pytest.mark.parametrize("load", [0.5, 0.7])
def test_queue_with_exponential_service_waits_as_long_as_theory_has_it(load: float) -> None:
    # M/M/1: the mean wait is load / (1 - load) times the mean service
    found = at_the_database(1e-4, 1, poisson(load, exponential(2)))
    assert found.mean_wait == pytest.approx(load / (1 - load), rel=0.08)


@pytest.mark.parametrize("load", [0.5, 0.7])
def test_queue_with_constant_service_waits_half_as_long(load: float) -> None:
    # M/D/1
    found = at_the_database(1e-4, 1, poisson(load, [10_000] * CUSTOMERS))
    assert found.mean_wait == pytest.approx(load / (1 - load) / 2, rel=0.08)


def test_each_wait_follows_from_the_one_before() -> None:
    # Lindley: each one waits for the rest of the previous one's work and wait
    syncs = poisson(0.9, exponential(4))[:2000]
    expected, wait = [], 0.0
    for sync, following in pairwise([*syncs, syncs[-1]]):
        expected.append(wait)
        wait = max(0.0, wait + sync.records * 1e-4 - (following.at - sync.at))
    assert at_the_database(1e-4, 1, syncs).waits == pytest.approx(expected, abs=1e-6)


def test_two_cores_wait_as_erlang_has_it() -> None:
    # M/M/2 at 60 %: Erlang's C is 0.45, the mean wait C / (2 - 1.2)
    found = at_the_database(1e-4, 2, poisson(1.2, exponential(3)))
    assert found.mean_wait == pytest.approx(0.45 / 0.8, rel=0.08)


DEMANDS = Demands(
    run=Demand(0.01, 0.005), planned=Demand(1e-6, 2e-6), record=Demand(1e-5, 3e-5), batch_records=2000
)


def needed(syncs: list[Sync], demands: Demands = DEMANDS) -> Demand:
    """Return their demands, added up."""
    records = sum(sync.records for sync in syncs)
    return demands.run.times(len(syncs)) + (demands.planned + demands.record).times(records)


@pytest.mark.parametrize("by_size", [True, False])
def test_one_worker_is_never_idle_and_does_all_the_work_once(by_size: bool) -> None:
    syncs = Mix().at_once(200, seed=2)
    found = simulate(Site(1, 4, by_size=by_size), DEMANDS, syncs)
    assert found.finished_at == pytest.approx(needed(syncs).seconds)
    assert found.database_seconds == pytest.approx(needed(syncs).database)
    assert found.records == sum(sync.records for sync in syncs)
    assert sorted(size for size, _ in found.latencies) == sorted(sync.records for sync in syncs)


def test_saturated_database_is_limited_by_its_cores() -> None:
    syncs = [Sync(0.0, 2000)] * 2000
    found = simulate(Site(100, 4), DEMANDS, syncs)
    limit = 4 * found.records / needed(syncs).database
    assert 0.98 * limit < found.records_per_second < 1.000001 * limit


def test_workers_alone_limit_a_database_that_has_cores_enough() -> None:
    syncs = [Sync(0.0, 2000)] * 2000
    found = simulate(Site(4, 100), DEMANDS, syncs)
    limit = 4 * found.records / needed(syncs).seconds
    assert 0.98 * limit < found.records_per_second < 1.000001 * limit


def test_shared_cores_are_the_limit_of_both() -> None:
    syncs = [Sync(0.0, 2000)] * 500
    found = simulate(Site(20, 2, shared=True), DEMANDS, syncs)
    demand = needed(syncs)
    limit = 2 * found.records / (demand.worker + demand.database)
    assert 0.98 * limit < found.records_per_second < 1.000001 * limit


def latency_of_small(by_size: bool) -> float:
    large, small = Sync(0.0, 400_000), [Sync(1.0 + number, 100) for number in range(5)]
    found = simulate(Site(1, 1, by_size=by_size), DEMANDS, [large, *small])
    return median(seconds for size, seconds in found.latencies if size == 100)


def test_small_syncs_overtake_a_large_one_only_if_they_may() -> None:
    batch = DEMANDS.record.times(2000).seconds
    assert latency_of_small(by_size=True) < DEMANDS.run.seconds + 4 * batch
    assert latency_of_small(by_size=False) > 100 * batch


def test_larger_runs_have_their_share_of_read_messages() -> None:
    def work(name: int) -> Any:
        return name

    broker = Broker(simulate_environment(), by_size=True)
    for priority in PRIORITIES:
        for _ in range(200):
            broker.put(work(priority), priority)
    read = [broker.get().value for _ in range(3 * READS_PER_TURN * 4)]
    assert {priority: read.count(priority) for priority in PRIORITIES} == {
        0: 3 * (READS_PER_TURN - 1) * 4,
        **dict.fromkeys(PRIORITIES[1:], 4),
    }


def simulate_environment() -> Any:
    from simpy import Environment

    return Environment()


@pytest.mark.parametrize(
    ("records", "expected"),
    [(1, [1]), (2000, [2000]), (3000, [300, 2250, 450]), (20_000, [2000, 15_000, 3000])],
)
def test_consecutive_steps_share_a_batch_where_they_fit(records: int, expected: list[int]) -> None:
    assert list(stages(records, 2000, SCHOOL)) == expected


def test_sizes_are_as_the_mix_says() -> None:
    mix = Mix()
    sizes = list(islice(mix.sizes(1), 50_000))
    assert median(sizes) == pytest.approx(300, rel=0.05)
    assert mean(size > 31_000 for size in sizes) == pytest.approx(0.01, rel=0.15)
    assert mix.mean_records == 300 * exp(2)
    large = sum(size for size in sizes if size > 4200)
    assert large / sum(sizes) == pytest.approx(0.75, abs=0.05)
    assert max(sizes) <= mix.largest_records


def test_demands_explain_the_probes() -> None:
    # Given the times of a run of 100 and of one of 50,000 records
    truth = Demands(Demand(0.03, 0.01, 0.02), Demand(1e-6, 2e-6, 0), Demand(1e-5, 3e-5, 2e-6))
    each = truth.planned + truth.record
    small, large = truth.run + each.times(100), truth.run + each.times(50_000)
    used = [Used(d.seconds, d.worker, d.database) for d in (truth.planned.times(50_000), small, large)]
    probe = Probe(1, 50_000, 100, used[0], used[1], used[2], 0.1, 3.0, 5)

    # When demands are made of that
    found = demands_of(probe, "here")

    # Then they are those
    for name in ("run", "planned", "record"):
        mine, real = getattr(found, name), getattr(truth, name)
        assert (mine.worker, mine.database, mine.delay) == pytest.approx(
            (real.worker, real.database, real.delay), abs=1e-9
        )


@pytest.mark.slow
def test_command_prints_a_table_and_draws_it(tmp_path: Any, capsys: pytest.CaptureFixture[str]) -> None:
    path, picture = tmp_path / "demands.json", tmp_path / "picture.png"
    DEMANDS.write(path)
    assert json.loads(path.read_text())["batch_records"] == 2000
    assert Demands.read(path) == DEMANDS
    options = ["--workers=1,4", "--syncs=1,50", "--cores=2", f"--demands={path}", f"--output={picture}"]
    assert command.main(options) == 0
    printed = capsys.readouterr().out
    assert "2 cores of the database are busy at" in printed
    assert picture.read_bytes().startswith(b"\x89PNG")
    assert priority_of(0) == 0
