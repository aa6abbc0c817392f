"""A scenario: two implementations, the data on which they are compared, and thresholds for the result."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Literal, NamedTuple

from typing_extensions import override

from bench.databases import Dataset, Engine

Quantity = Literal[
    "ratio",
    "peak_rss_mb",
    "extra_peak_rss_mb",
    "extra_ms",
    "records_per_second",
    "message_bytes",
    "redis_ratio",
    "times",
    "median_share",
    "statements",
    "commits",
    "ids_per_record",
]
"""The quantities that have thresholds. ``extra``: more than the baseline's. ``redis_ratio``: the baseline's
memory in Redis, divided by ours. ``times``: the time that ours takes, divided by the baseline's.
``median_share``: of several syncs at once, when half are done, as a share of the time until all are.
``statements``, ``commits``: of one sync. ``ids_per_record``: handed out by all runs together."""


@dataclass(frozen=True)
class Threshold:
    """The lowest or the highest value that a quantity of the result may have."""

    quantity: Quantity
    at_least: float | None = None
    at_most: float | None = None

    def is_met(self, value: float) -> bool:
        if self.at_least is not None:
            return value >= self.at_least
        assert self.at_most is not None, "a threshold has a limit"
        return value <= self.at_most

    @override
    def __str__(self) -> str:
        if self.at_least is not None:
            return f">= {self.at_least:,g}"
        return f"<= {self.at_most:,g}"


WITH_WORKERS = frozenset(("celery", "fleet", "morango-fleet", "large-alone"))
"""The implementations that are several processes at work, as many as the scenario says."""


def ratio(at_least: float) -> tuple[Threshold, ...]:
    return (Threshold("ratio", at_least=at_least),)


MEMORY = (Threshold("peak_rss_mb", at_most=80), Threshold("extra_peak_rss_mb", at_most=10))


class Size(NamedTuple):
    """A number of records."""

    full: int
    quick: int
    """The number with QUICK=1."""

    def of(self, quick: bool) -> int:
        return self.quick if quick else self.full


@dataclass(frozen=True)
class Scenario:
    """One line of the table."""

    name: str
    database: Engine
    size: Size
    """Number of records; for several syncs, of one."""
    thresholds: tuple[Threshold, ...] = ()
    models: str = "school"
    """The host: a key of ``bench.databases.HOSTS``."""
    case: str = "school"
    """The kind of records: a key of ``bench.data.CASES``, or "kolibri"."""
    ours: str = "ours"
    """The implementation that is measured: a key of ``bench.implementations.IMPLEMENTATIONS``."""
    workers: int = 0
    baseline: str = "morango"
    """The implementation that it is compared with."""
    baseline_size: Size | None = None
    """The baseline's number of records, if another one, to see growth with it."""
    repetitions: int = 3
    """Number of the baseline's measurements; ours has one more."""
    in_quick: bool = True

    def with_records(self, number: int) -> Scenario:
        """Return the same on another number of records."""
        return replace(self, size=Size(number, number))

    @property
    def baseline_workers(self) -> int:
        return self.workers if self.baseline in WITH_WORKERS else 0

    def dataset(self, quick: bool) -> Dataset:
        return Dataset(self.models, self.database, self.case, self.size.of(quick))

    def baseline_dataset(self, quick: bool) -> Dataset:
        size = self.baseline_size or self.size
        return Dataset(self.models, self.database, self.case, size.of(quick))
