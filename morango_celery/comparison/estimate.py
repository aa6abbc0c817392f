"""Estimate of a comparison's duration, by which it can be refused beforehand."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

from morango_celery.comparison.compare import compare
from morango_celery.comparison.report import Request
from morango_celery.comparison.selection import DEFAULT_SAMPLE_RECORDS, waiting_records

SAMPLE_RECORDS = 200
"""Number of records that are compared to estimate the time for more of them."""
MOST_SAMPLED_FROM = 50_000
"""Up to so many waiting records a sample is tried, for which all others have to be made clean."""
SECONDS_PER_RECORD = 0.004
"""Time that is assumed then. Kolibri's records take Morango so long (docs/explain/performance.md)."""


@dataclass(frozen=True)
class Estimate:
    """Records that a comparison takes, and the time for which it holds its locks."""

    records: int
    """Targets of selected records come on top."""
    seconds: float | None
    """None for so few that they need no estimate."""


def estimate(request: Request, is_stopped: Callable[[], bool] = lambda: False) -> Estimate:
    """Estimate the duration of a comparison from one of a small sample.

    :param is_stopped: as for `compare`
    :raises ComparisonError: the sample could not be compared
    Cost: one statement, and the comparison of `SAMPLE_RECORDS` records if there are more.
    """
    records = waiting_records(request).count()
    limit = request.records
    if request.replay:
        records = max(records, limit or DEFAULT_SAMPLE_RECORDS)
    if limit is not None:
        records = min(records, limit)
    if records <= SAMPLE_RECORDS:
        return Estimate(records, None)
    if records > MOST_SAMPLED_FROM:
        return Estimate(records, records * SECONDS_PER_RECORD)
    sample = compare(replace(request, records=SAMPLE_RECORDS, show_values=False), is_stopped=is_stopped)
    by_record = sample.morango.seconds + sample.ours.seconds
    times = records / max(sample.records, 1)
    return Estimate(records, sample.seconds - by_record + by_record * times)
