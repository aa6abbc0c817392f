"""Everything that is measured, and the bar that it has to meet. To measure more, add a row here.

A row compares two sides of ``bench.sides`` on one dataset.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from bench.databases import Dataset, Engine

Quantity = Literal["ratio", "peak_rss_mb", "extra_peak_rss_mb", "extra_ms", "records_per_second"]


@dataclass(frozen=True)
class Bar:
    """What a quantity of the result has to be: at least so much, or at most."""

    quantity: Quantity
    at_least: float | None = None
    at_most: float | None = None

    def is_met(self, value: float) -> bool:
        if self.at_least is not None:
            return value >= self.at_least
        assert self.at_most is not None
        return value <= self.at_most

    def __str__(self) -> str:
        return f"{'>=' if self.at_least is not None else '<='} {self.at_least or self.at_most:,g}"


@dataclass(frozen=True)
class Row:
    """One line of the table."""

    name: str
    database: Engine
    records: int
    quick_records: int
    """How many with QUICK=1."""
    bars: tuple[Bar, ...] = ()
    models: str = "school"
    case: str = "school"
    ours: str = "ours"
    """The side that is measured: a key of ``bench.sides.SIDES``."""
    workers: int = 0
    baseline: str = "morango"
    """The side that it is compared with."""
    repetitions: int = 3
    """How often the baseline is measured; ours once more."""

    def dataset(self, quick: bool) -> Dataset:
        records = self.quick_records if quick else self.records
        return Dataset(self.models, self.database, self.case, records)


ROWS = [
    Row("deserialize", "postgresql", 200_000, 5_000, (Bar("ratio", at_least=20),), repetitions=2),
    Row("deserialize", "sqlite", 50_000, 5_000, (Bar("ratio", at_least=12),)),
]
