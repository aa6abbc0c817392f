"""Everything that is measured, and the thresholds that it has to meet. To measure more, add a scenario.

A scenario compares two implementations (``implementations.py``) on the same data. Scenarios on the same
dataset share measurements. Where ours merges local edits first, as a sync's stage does, so does Morango's.
"""

from __future__ import annotations

from dataclasses import replace
from itertools import product

from bench.databases import Engine
from bench.scenario import MEMORY, Scenario, Size, Threshold, ratio
from bench.small_syncs import SMALL_SYNCS
from bench.values import KINDS, OPERATIONS, SIZES, implementation_name

LARGE = Size(200_000, 2_000)
MIDDLE = Size(50_000, 2_000)
FAILING = Size(50_000, 1_000)
HUGE, SMALL = Size(1_000_000, 20_000), Size(10_000, 4_000)
KOLIBRI = Size(20_000, 1_600)
WORKERS = 2


STAGE = Scenario(
    "deserialize",
    "postgresql",
    LARGE,
    ratio(20),
    ours="ours-stage",
    baseline="morango-stage",
    repetitions=2,
)
"""A sync's whole stage: local edits are merged first, by both implementations."""


def _kolibri() -> list[Scenario]:
    scenario = replace(
        STAGE, database="sqlite", size=KOLIBRI, thresholds=ratio(9), models="kolibri", case="kolibri"
    )
    # Migrating a second database would take a good part of the three minutes
    on_postgresql = replace(
        scenario,
        database="postgresql",
        thresholds=(*ratio(15), Threshold("peak_rss_mb", at_most=110)),
        in_quick=False,
    )
    by_workers = replace(
        on_postgresql,
        thresholds=(*ratio(20), Threshold("peak_rss_mb", at_most=100)),
        ours="celery",
        workers=WORKERS,
    )
    return [on_postgresql, by_workers, scenario]


SCENARIOS = [
    # Two repetitions of the largest: Morango takes minutes for each
    STAGE,
    replace(STAGE, thresholds=ratio(27), ours="celery", workers=WORKERS),
    Scenario("share-of-sql", "postgresql", LARGE, ratio(0.5), baseline="sql", repetitions=2, in_quick=False),
    replace(STAGE, database="sqlite", size=MIDDLE, thresholds=ratio(12), repetitions=3),
    *_kolibri(),
    Scenario(
        "memory-of-worker",
        "postgresql",
        HUGE,
        MEMORY,
        ours="celery",
        workers=WORKERS,
        baseline="celery",
        baseline_size=SMALL,
        repetitions=1,
    ),
    Scenario(
        "memory-of-producer",
        "postgresql",
        HUGE,
        (*MEMORY, Threshold("records_per_second", at_least=100_000)),
        ours="producer",
        baseline="producer",
        baseline_size=SMALL,
        repetitions=1,
    ),
    Scenario(
        "small-sync-latency",
        "postgresql",
        Size(100, 100),
        (Threshold("extra_ms", at_most=100),),
        case="schools",
        ours="celery",
        workers=WORKERS,
        baseline="ours-stage",
    ),
    Scenario(
        "small-sync",
        "postgresql",
        Size(1_000, 100),
        ratio(1),
        case="schools",
        ours="celery",
        workers=WORKERS,
        baseline="morango-stage",
    ),
    Scenario("all-failing", "postgresql", FAILING, ratio(5), case="invalid", repetitions=2),
    Scenario("all-failing", "sqlite", FAILING, ratio(5), case="invalid", repetitions=2),
    Scenario("unique-violations", "postgresql", FAILING, ratio(10), case="clashing", repetitions=2),
    Scenario("unique-violations", "sqlite", FAILING, ratio(10), case="clashing", repetitions=2),
    Scenario("chain", "postgresql", Size(5_000, 500), ratio(5), case="chain"),
    Scenario("chain", "sqlite", Size(5_000, 500), ratio(5), case="chain"),
    Scenario("tree", "postgresql", Size(100_000, 1_000), ratio(5), case="tree", repetitions=1),
    Scenario("tree", "sqlite", Size(100_000, 1_000), ratio(5), case="tree", repetitions=1),
]


def _fat() -> list[Scenario]:
    """List records of 40 KB: less memory than Morango takes, and than a batch of them would."""
    thresholds = (*ratio(1), Threshold("peak_rss_mb", at_most=160), Threshold("extra_peak_rss_mb", at_most=0))
    scenario = Scenario(
        "fat", "postgresql", Size(5_000, 500), thresholds, case="fat", repetitions=1, in_quick=False
    )
    return [scenario, replace(scenario, database="sqlite")]


SCENARIOS += _fat()


def _oplog() -> list[Scenario]:
    """List logs of objects. One by one, a million would take hours."""
    scenarios = []
    databases: tuple[Engine, ...] = ("postgresql", "sqlite")
    for database in databases:
        scenario = Scenario(
            "oplog", database, Size(20_000, 500), ratio(10), case="oplog", ours="oplog", repetitions=1
        )
        thresholds = (Threshold("peak_rss_mb", at_most=100), Threshold("extra_peak_rss_mb", at_most=10))
        memory = replace(scenario, name="memory-of-oplog", size=HUGE, thresholds=thresholds, in_quick=False)
        scenarios += [
            replace(scenario, baseline="one-by-one"),
            replace(memory, baseline="oplog", baseline_size=SMALL),
        ]
    return scenarios


SCENARIOS += _oplog()


def _serialization() -> list[Scenario]:
    scenarios = []
    ratios = {
        ("new_rows", "postgresql"): 3.5,
        ("new_rows", "sqlite"): 2.5,
        ("changed_rows", "postgresql"): 20,
        ("changed_rows", "sqlite"): 30,
    }
    databases: tuple[Engine, ...] = ("postgresql", "sqlite")
    for database in databases:
        scenario = Scenario(
            "", database, MIDDLE, ours="serializing", baseline="morango-serializing", repetitions=2
        )
        fresh = replace(scenario, name="serialize-fresh", case="new_rows")
        update = replace(scenario, name="serialize-update", case="changed_rows")
        few = replace(scenario, name="serialize-few", case="few_edits")
        thresholds = (Threshold("peak_rss_mb", at_most=90), Threshold("extra_peak_rss_mb", at_most=10))
        memory = replace(fresh, name="memory-of-serializing", baseline="serializing", baseline_size=SMALL)
        scenarios += [
            replace(fresh, size=LARGE, thresholds=ratio(ratios["new_rows", database])),
            replace(update, thresholds=ratio(ratios["changed_rows", database])),
            replace(few, size=Size(100_000, 10_000), thresholds=ratio(1), repetitions=3, in_quick=False),
            replace(memory, size=LARGE, thresholds=thresholds, repetitions=1, in_quick=False),
            replace(fresh, size=Size(10_000, 10_000), repetitions=1, in_quick=False),
            replace(update, size=Size(10_000, 10_000), repetitions=1, in_quick=False),
        ]
    return scenarios


SCENARIOS += _serialization()


PREFIXES = {3: 600, 100: 200, 450: 900, 1_000: 2_000}
"""Numbers of records under filters of so many prefixes. With 500 or more, Morango's queries nest more
conditions than SQLite takes."""


def under_prefixes(number: int) -> str:
    """Return the name of their case."""
    return f"under_{number}_prefixes"


def _prefixes() -> list[Scenario]:
    """List filters of many prefixes, in both directions."""
    scenarios = []
    databases: dict[Engine, tuple[int, ...]] = {"postgresql": (3, 100, 1_000), "sqlite": (3, 100, 450)}
    for database, numbers in databases.items():
        for number in numbers:
            size = Size(PREFIXES[number], PREFIXES[number])
            scenario = Scenario(
                "prefixes", database, size, ratio(1), case=under_prefixes(number), repetitions=5
            )
            serializing = replace(
                scenario,
                name="serialize-prefixes",
                case=f"edited_{scenario.case}",
                ours="serializing",
                baseline="morango-serializing",
                in_quick=False,
            )
            scenarios += [replace(scenario, in_quick=(database, number) == ("postgresql", 100)), serializing]
    return scenarios


SCENARIOS += _prefixes()


def _payloads() -> list[Scenario]:
    """List data that is too large for a message. Of a value that is stored or read, a record is a byte."""
    thresholds = (
        *ratio(0.8),
        Threshold("message_bytes", at_most=1023),
        Threshold("redis_ratio", at_least=20),
    )
    sent = Scenario(
        "messages", "postgresql", Size(2_000_000, 40_000), thresholds, case="messages", ours="messages"
    )
    scenarios = [replace(sent, baseline="messages-inline")]
    for kind, operation, size in product(KINDS, OPERATIONS, SIZES):
        scenario = Scenario(
            f"payloads-{operation}",
            "sqlite",
            Size(SIZES[size], SIZES[size]),
            ratio(1),
            case="payloads",
            ours=implementation_name(operation, size, f"payloads-{kind}"),
            baseline=implementation_name(operation, size, f"pynenc-{kind}"),
            in_quick=size == "1KiB",
        )
        scenarios.append(scenario)
    return scenarios


SCENARIOS += _payloads()


def _curve() -> list[Scenario]:
    """List the further points of the plot: throughput and memory over the number of records."""
    scenarios = []
    databases: tuple[Engine, ...] = ("postgresql", "sqlite")
    for database in databases:
        for records in (1_000, 10_000, 50_000):
            if database == "postgresql" or records != MIDDLE.full:
                size = Size(records, records)
                in_quick = (database, records) == ("sqlite", 1_000)
                scenarios.append(Scenario("curve", database, size, repetitions=1, in_quick=in_quick))
        scenarios.append(
            Scenario(
                "curve", database, HUGE, baseline="ours", baseline_size=SMALL, repetitions=1, in_quick=False
            )
        )
    scenarios.append(
        Scenario("curve", "postgresql", SMALL, ours="celery", workers=WORKERS, repetitions=1, in_quick=False)
    )
    return scenarios


SCENARIOS += _curve()


SCENARIOS += SMALL_SYNCS
