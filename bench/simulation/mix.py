"""Sizes and arrival times of syncs.

Log-normal, for a device's records are a product of many things: learners, days since the last sync,
exercises a day. Its numbers are assumptions, not measurements: half of the syncs bring up to 300 records
(a class's day or two), one in a hundred more than 31,000, one in 40,000 a million (a school's first). So
three quarters of all records come with the 9 % of the syncs that have more than 4,200. Options change
them.
"""

from __future__ import annotations

import random
from collections.abc import Iterator
from dataclasses import dataclass
from math import exp, log
from typing import NamedTuple

SMALL_RECORDS = 1000
"""Largest number of records of a sync that the results call small."""


class Sync(NamedTuple):
    at: float
    """Time of enqueueing, in seconds."""
    records: int


@dataclass(frozen=True)
class Mix:
    """Sizes of syncs."""

    median_records: float = 300.0
    sigma: float = 2.0
    """Standard deviation of the size's logarithm."""
    largest_records: int = 1_000_000

    @property
    def mean_records(self) -> float:
        """But for the limit."""
        return self.median_records * exp(self.sigma**2 / 2)

    def sizes(self, seed: int) -> Iterator[int]:
        chance = random.Random(seed)
        while True:
            size = round(chance.lognormvariate(log(self.median_records), self.sigma))
            yield min(max(size, 1), self.largest_records)

    def at_once(self, number: int, seed: int) -> list[Sync]:
        """So many syncs that end at the same moment."""
        return [Sync(0.0, size) for size, _ in zip(self.sizes(seed), range(number), strict=False)]

    def arriving(self, per_second: float, number: int, seed: int) -> list[Sync]:
        """So many syncs, each whenever it likes."""
        chance, at, syncs = random.Random(seed), 0.0, []
        for size, _ in zip(self.sizes(seed), range(number), strict=False):
            at += chance.expovariate(per_second)
            syncs.append(Sync(at, size))
        return syncs
