"""Scenarios of small syncs, of which most of a server's day consists."""

from __future__ import annotations

from dataclasses import replace

from bench.cases import DELETIONS, ON_A_SERVER, ONE_FACILITY, TWO_PREFIXES, syncs_of
from bench.profiles import OVER_HTTP
from bench.scenario import Scenario, Size, Threshold, ratio

WORKERS = 2

FLEET = Scenario(
    "",
    "postgresql",
    Size(0, 0),
    ours="fleet",
    workers=WORKERS,
    baseline="morango-fleet",
    repetitions=2,
    in_quick=False,
)
"""Syncs that are asked for at once. Morango serves them in as many processes as there are workers."""

ALONE = replace(FLEET, ours="tasks", workers=0, baseline="morango-stage")
"""Syncs one after another, in one process that takes its messages from Redis itself."""


def _fleet(records: int, syncs: int, at_least: float) -> Scenario:
    case = syncs_of(records)
    size = Size(syncs * records, 40 * records)
    thresholds = (*ratio(at_least), Threshold("median_share", at_most=0.55))
    return replace(FLEET, name=f"fleet-of-{records}", size=size, thresholds=thresholds, case=case)


def _kolibri() -> list[Scenario]:
    """Devices of learners that push 20 records of three models, under one prefix and under two."""
    statements = (Threshold("statements", at_most=35), Threshold("commits", at_most=5))
    scenarios = []
    for end, kind in (("", ""), ("-under-two-prefixes", TWO_PREFIXES)):
        case = syncs_of(20, kind)
        fleet = replace(_fleet(20, 100, 3), name=f"fleet-of-20{end}", models="kolibri", case=case)
        alone = replace(ALONE, name=f"sync-of-20{end}", size=fleet.size, thresholds=statements)
        scenarios += [fleet, replace(alone, models="kolibri", case=case)]
    return scenarios


def _smallest() -> list[Scenario]:
    """List syncs that show the fixed price of a sync."""
    three = replace(ALONE, name="sync-of-3", size=Size(120, 30), thresholds=ratio(3), case=syncs_of(3))
    deletions = syncs_of(5, DELETIONS)
    five = replace(ALONE, name="five-deletions", size=Size(200, 50), thresholds=ratio(2.5), case=deletions)
    return [
        replace(scenario, models=models) for scenario in (three, five) for models in ("school", "kolibri")
    ]


def _facility() -> list[Scenario]:
    """List syncs that find records of each other's under their filters."""
    shared = Threshold("ids_per_record", at_most=1.1)
    devices = replace(FLEET, name="one-facility", size=Size(18_000, 3_000), thresholds=(shared,))
    times = (Threshold("times", at_most=1.3),)
    large = replace(FLEET, name="large-and-small", size=Size(100_000, 2_000), thresholds=times)
    return [
        replace(devices, case=syncs_of(600, ONE_FACILITY)),
        replace(large, ours="large-and-small", baseline="large-alone"),
    ]


SMALL_SYNCS = [
    replace(_fleet(10, 200, 3), in_quick=True),
    _fleet(100, 200, 7),
    *_kolibri(),
    *_smallest(),
    *_facility(),
    replace(
        ALONE,
        name="sync-on-a-large-server",
        size=Size(1_000_000, 20_000),
        thresholds=(Threshold("times", at_most=1.2),),
        case=syncs_of(10, ON_A_SERVER),
        baseline="tasks",
        baseline_size=Size(10_000, 4_000),
    ),
    Scenario(
        "sync-over-http",
        "postgresql",
        Size(20, 20),
        (Threshold("times", at_most=1),),
        OVER_HTTP,
        "over_http",
        ours="plugged-in",
        workers=WORKERS,
        baseline="stock",
        repetitions=2,
        in_quick=False,
    ),
]
