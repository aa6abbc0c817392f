"""Everything that is measured, and the bar that it has to meet. To measure more, add a row.

A row compares two sides (``sides.py``) on the same data; rows on the same dataset share measurements. Where
ours merges local edits first, as a sync's stage does, so does Morango's side.
"""

from __future__ import annotations

from dataclasses import replace
from itertools import product

from bench.databases import Engine
from bench.row import MEMORY, Bar, Row, Size, ratio
from bench.small_syncs import SMALL_SYNCS
from bench.values import KINDS, OPERATIONS, SIZES, side

LARGE = Size(200_000, 2_000)
MIDDLE = Size(50_000, 2_000)
FAILING = Size(50_000, 1_000)
HUGE, SMALL = Size(1_000_000, 20_000), Size(10_000, 4_000)
KOLIBRI = Size(20_000, 1_600)
WORKERS = 2


STAGE = Row(
    "deserialize",
    "postgresql",
    LARGE,
    ratio(20),
    ours="ours-stage",
    baseline="morango-stage",
    repetitions=2,
)
"""A sync's whole stage: local edits are merged first, by both sides."""


def _kolibri() -> list[Row]:
    row = replace(STAGE, database="sqlite", size=KOLIBRI, bars=ratio(6), models="kolibri", case="kolibri")
    # Migrating a second database would take a good part of the three minutes
    on_postgresql = replace(row, database="postgresql", bars=ratio(8), in_quick=False)
    return [on_postgresql, replace(on_postgresql, ours="celery", workers=WORKERS), row]


ROWS = [
    # Two repetitions of the largest: Morango takes minutes for each
    STAGE,
    replace(STAGE, bars=ratio(30), ours="celery", workers=WORKERS),
    Row("share-of-sql", "postgresql", LARGE, ratio(0.5), baseline="sql", repetitions=2, in_quick=False),
    replace(STAGE, database="sqlite", size=MIDDLE, bars=ratio(12), repetitions=3),
    *_kolibri(),
    Row(
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
    Row(
        "memory-of-producer",
        "postgresql",
        HUGE,
        (*MEMORY, Bar("records_per_second", at_least=100_000)),
        ours="producer",
        baseline="producer",
        baseline_size=SMALL,
        repetitions=1,
    ),
    Row(
        "small-sync-latency",
        "postgresql",
        Size(100, 100),
        (Bar("extra_ms", at_most=100),),
        case="schools",
        ours="celery",
        workers=WORKERS,
        baseline="ours-stage",
    ),
    Row(
        "small-sync",
        "postgresql",
        Size(1_000, 100),
        ratio(1),
        case="schools",
        ours="celery",
        workers=WORKERS,
        baseline="morango-stage",
    ),
    Row("all-failing", "postgresql", FAILING, ratio(5), case="invalid", repetitions=2),
    Row("all-failing", "sqlite", FAILING, ratio(5), case="invalid", repetitions=2),
    Row("unique-violations", "postgresql", FAILING, ratio(10), case="clashing", repetitions=2),
    Row("unique-violations", "sqlite", FAILING, ratio(10), case="clashing", repetitions=2),
    Row("chain", "postgresql", Size(5_000, 500), ratio(5), case="chain"),
    Row("chain", "sqlite", Size(5_000, 500), ratio(5), case="chain"),
    Row("tree", "postgresql", Size(100_000, 1_000), ratio(5), case="tree", repetitions=1),
    Row("tree", "sqlite", Size(100_000, 1_000), ratio(5), case="tree", repetitions=1),
]


def _fat() -> list[Row]:
    """Records of 40 KB: less memory than Morango takes, and than a batch of them would."""
    bars = (*ratio(1), Bar("peak_rss_mb", at_most=160), Bar("extra_peak_rss_mb", at_most=0))
    row = Row("fat", "postgresql", Size(5_000, 500), bars, case="fat", repetitions=1, in_quick=False)
    return [row, replace(row, database="sqlite")]


ROWS += _fat()


def _oplog() -> list[Row]:
    """A log of objects. One by one, a million would take hours."""
    rows = []
    databases: tuple[Engine, ...] = ("postgresql", "sqlite")
    for database in databases:
        row = Row("oplog", database, Size(20_000, 500), ratio(10), case="oplog", ours="oplog", repetitions=1)
        bars = (Bar("peak_rss_mb", at_most=100), Bar("extra_peak_rss_mb", at_most=10))
        memory = replace(row, name="memory-of-oplog", size=HUGE, bars=bars, in_quick=False)
        rows += [
            replace(row, baseline="one-by-one"),
            replace(memory, baseline="oplog", baseline_size=SMALL),
        ]
    return rows


ROWS += _oplog()


def _serialization() -> list[Row]:
    rows = []
    ratios = {
        ("new_rows", "postgresql"): 3.5,
        ("new_rows", "sqlite"): 2.5,
        ("changed_rows", "postgresql"): 20,
        ("changed_rows", "sqlite"): 30,
    }
    databases: tuple[Engine, ...] = ("postgresql", "sqlite")
    for database in databases:
        row = Row("", database, MIDDLE, ours="serializing", baseline="morango-serializing", repetitions=2)
        fresh = replace(row, name="serialize-fresh", case="new_rows")
        update = replace(row, name="serialize-update", case="changed_rows")
        few = replace(row, name="serialize-few", case="few_edits")
        bars = (Bar("peak_rss_mb", at_most=90), Bar("extra_peak_rss_mb", at_most=10))
        memory = replace(fresh, name="memory-of-serializing", baseline="serializing", baseline_size=SMALL)
        rows += [
            replace(fresh, size=LARGE, bars=ratio(ratios["new_rows", database])),
            replace(update, bars=ratio(ratios["changed_rows", database])),
            replace(few, size=Size(100_000, 10_000), bars=ratio(1), repetitions=3, in_quick=False),
            replace(memory, size=LARGE, bars=bars, repetitions=1, in_quick=False),
            replace(fresh, size=Size(10_000, 10_000), repetitions=1, in_quick=False),
            replace(update, size=Size(10_000, 10_000), repetitions=1, in_quick=False),
        ]
    return rows


ROWS += _serialization()


PREFIXES = {3: 600, 100: 200, 450: 900, 1_000: 2_000}
"""How many records there are under filters of so many prefixes. With 500 or more, Morango's queries nest more
conditions than SQLite takes."""


def under_prefixes(number: int) -> str:
    """The name of their case."""
    return f"under_{number}_prefixes"


def _prefixes() -> list[Row]:
    """Filters of many prefixes, in both directions."""
    rows = []
    databases: dict[Engine, tuple[int, ...]] = {"postgresql": (3, 100, 1_000), "sqlite": (3, 100, 450)}
    for database, numbers in databases.items():
        for number in numbers:
            size = Size(PREFIXES[number], PREFIXES[number])
            row = Row("prefixes", database, size, ratio(1), case=under_prefixes(number), repetitions=5)
            serializing = replace(
                row,
                name="serialize-prefixes",
                case=f"edited_{row.case}",
                ours="serializing",
                baseline="morango-serializing",
                in_quick=False,
            )
            rows += [replace(row, in_quick=(database, number) == ("postgresql", 100)), serializing]
    return rows


ROWS += _prefixes()


def _payloads() -> list[Row]:
    """What is too large for a message. Of a value, records are bytes: of one that is stored, or read."""
    bars = (*ratio(0.8), Bar("message_bytes", at_most=1023), Bar("redis_ratio", at_least=20))
    sent = Row("messages", "postgresql", Size(2_000_000, 40_000), bars, case="messages", ours="messages")
    rows = [replace(sent, baseline="messages-inline")]
    for kind, operation, size in product(KINDS, OPERATIONS, SIZES):
        row = Row(
            f"payloads-{operation}",
            "sqlite",
            Size(SIZES[size], SIZES[size]),
            ratio(1),
            case="payloads",
            ours=side(operation, size, f"payloads-{kind}"),
            baseline=side(operation, size, f"pynenc-{kind}"),
            in_quick=size == "1KiB",
        )
        rows.append(row)
    return rows


ROWS += _payloads()


def _curve() -> list[Row]:
    """What the plot needs besides: how throughput and memory change with the number of records."""
    rows = []
    databases: tuple[Engine, ...] = ("postgresql", "sqlite")
    for database in databases:
        for records in (1_000, 10_000, 50_000):
            if database == "postgresql" or records != MIDDLE.full:
                size = Size(records, records)
                in_quick = (database, records) == ("sqlite", 1_000)
                rows.append(Row("curve", database, size, repetitions=1, in_quick=in_quick))
        rows.append(
            Row("curve", database, HUGE, baseline="ours", baseline_size=SMALL, repetitions=1, in_quick=False)
        )
    rows.append(
        Row("curve", "postgresql", SMALL, ours="celery", workers=WORKERS, repetitions=1, in_quick=False)
    )
    return rows


ROWS += _curve()


ROWS += SMALL_SYNCS
