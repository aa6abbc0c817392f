"""Rows of small syncs, of which most of a server's day consists."""

from __future__ import annotations

from bench.cases import syncs_of
from bench.row import Bar, Row, Size, ratio

WORKERS = 2


def _fleet(name: str, case: str, size: Size, at_least: float, models: str = "school") -> Row:
    """All syncs are asked for at once; Morango serves them in as many processes as there are workers."""
    return Row(
        name,
        "postgresql",
        size,
        (*ratio(at_least), Bar("median_share", at_most=0.55)),
        models,
        case,
        ours="fleet",
        workers=WORKERS,
        baseline="morango-fleet",
        repetitions=2,
        in_quick=case == syncs_of(10),
    )


SMALL_SYNCS = [
    _fleet("fleet-of-10", syncs_of(10), Size(2_000, 400), 3),
    _fleet("fleet-of-100", syncs_of(100), Size(20_000, 2_000), 7),
]
