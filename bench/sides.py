"""The sides of a comparison: each deserializes a prepared database its own way, and says how long it took."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from importlib import import_module
from typing import Any

from morango.models.certificates import Filter

from bench.measurement import Order

PROFILES = {"school": "school", "kolibri": "facilitydata"}

WARM_UP_SYNCS = 2
"""Of several syncs in one process, so many are not counted: who serves them was not just started."""


@dataclass
class Work:
    """What is measured. Called once per sync, it returns the seconds that this one took."""

    carry_out: Callable[[Filter | None], float]
    peaks_mb: Callable[[], dict[str, list[float]]] = field(default=dict)
    """The peaks of other processes that took part, by kind; asked for while they still run."""

    def __call__(self, sync_filter: Filter | None) -> float:
        return self.carry_out(sync_filter)


def timed(function: Callable[[Filter | None], object]) -> Work:
    """Work that takes as long as the function."""

    def carry_out(sync_filter: Filter | None) -> float:
        began = time.perf_counter()
        function(sync_filter)
        return time.perf_counter() - began

    return Work(carry_out)


@contextmanager
def morango(order: Order) -> Iterator[Work]:
    """Morango's own function, unmodified, with the isolation that it gives itself; where the host has a cache
    for the time of a sync, as Kolibri has, with that."""
    function = import_module("morango.sync.operations")._deserialize_from_store
    if order.models == "kolibri":
        import_module("kolibri.core.auth.models").dataset_cache.activate()
    yield timed(lambda sync_filter: function(PROFILES[order.models], filter=sync_filter))


@contextmanager
def ours(order: Order) -> Iterator[Work]:
    """The replacement for it, in this process; with ledger, locks and all."""
    function: Callable[..., Any] = import_module("morango_celery").deserialize_from_store
    yield timed(lambda sync_filter: function(PROFILES[order.models], filter=sync_filter))


SIDES = {"morango": morango, "ours": ours}
"""Each is entered outside of the time that is measured."""


def syncs(case: str) -> tuple[list[Filter | None], int]:
    """The filters of the syncs that a case consists of, and how many of them are for warming up."""
    if case != "schools":
        return [None], 0
    data = import_module("bench.data")  # of the models of schools, which other hosts don't have
    return [Filter(data.school_id(number)) for number in range(data.SYNCS)], WARM_UP_SYNCS
