"""The work of an implementation, in the time that is measured."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from morango.models.certificates import Filter


@dataclass(frozen=True)
class Work:
    """The measured work; called once per sync."""

    carry_out: Callable[[Filter | None], float]
    """Returns the seconds that it took."""
    peaks_mb: Callable[[], list[float]] = list
    """The peaks of the processes that do the work, if this one doesn't; asked for while they still run."""
    figures: Callable[[], Mapping[str, float]] = dict
    """More of the measurement, by its names; asked for afterwards."""


def timed(function: Callable[[Filter | None], object]) -> Work:
    """Work that takes as long as the function."""

    def carry_out(sync_filter: Filter | None) -> float:
        began = time.perf_counter()
        function(sync_filter)
        return time.perf_counter() - began

    return Work(carry_out)
