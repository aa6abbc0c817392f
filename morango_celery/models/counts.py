"""Counts of the ledger that only grow: of ended runs, records, closed batches, comparisons, and their times.

They are computed of any rows: of all for the metrics, and of those that are about to be deleted.
"""

from __future__ import annotations

import datetime
from collections.abc import Iterable, Mapping
from typing import Any

from django.db.models import Count, DurationField, ExpressionWrapper, F, Max, Min, Q, QuerySet, Sum, Value
from django.db.models.functions import Greatest

from morango_celery.models.batch import Batch
from morango_celery.models.comparison import Comparison
from morango_celery.models.run import Run

Counts = dict[str, dict[str, float]]
"""Numbers by counter, then by label: a state, an outcome, or a part of a histogram."""

Tally = dict[str, Counts]
"""Counts by profile; those of counters without one are under an empty name."""

RUNS_ENDED = "runs_ended"
RECORDS = "records"
NEWLY_FAILED = "newly_failed_records"
BATCHES = "batches"
COMPARISONS = "comparisons"
COMPARISON_DIFFERENCES = "comparison_differences"
RUN_SECONDS = "run_seconds"
BATCH_SECONDS = "batch_seconds"
STAGE_SECONDS = "stage_seconds"

BUCKETS_SECONDS: Mapping[str, tuple[float, ...]] = {
    RUN_SECONDS: (1, 5, 15, 60, 300, 900, 3600, 14400, 86400),
    BATCH_SECONDS: (0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 150, 300),
    STAGE_SECONDS: (1, 5, 15, 60, 300, 900, 3600, 14400),
}
"""Upper ends of the buckets of each histogram, without the last one, which is open."""

NUMBER = "count"
SUM = "sum"
"""Labels of a histogram's counts, beside the upper ends of its buckets."""

FINAL_AT_THE_END = ("conflicted", "failed")
"""Counts of a run that a later pass may lower."""

ENDED = [state.value for state in Run.ENDED]
CLOSED = [state.value for state in Batch.State if state is not Batch.State.OPEN]
COMPARED = ("same", "different", "failed")


def run_rows(runs: QuerySet[Run], **more: Any) -> QuerySet[Any]:
    """Return the query of sums over runs by profile and state, in this order.

    :param more: aggregates to read with them
    """
    sums = {f"sum_{name}": Sum(name) for name in Run.COUNTS}
    timed = _timed(runs, F("finished_at") - F("created_at"))
    rows = timed.values("profile", "state")
    # Records that were in error at the beginning are tried again, and mostly fail again
    first_failures = Greatest(F("failed") - F("previous_failures"), Value(0))
    newly_failed = Sum(first_failures, filter=Q(retry_errors=False))
    counted = rows.annotate(
        runs=Count("pk"), newly_failed=newly_failed, **_histogram(RUN_SECONDS), **sums, **more
    )
    ordered: QuerySet[Any] = counted.order_by("profile", "state")
    return ordered


def counts_of_runs(rows: Iterable[dict[str, Any]]) -> Tally:
    """Return the counts in rows of `run_rows`."""
    tally: Tally = {}
    for row in rows:
        is_over = row["state"] in ENDED
        records = {name: row[f"sum_{name}"] for name in Run.COUNTS if is_over or name not in FINAL_AT_THE_END}
        found: Counts = {RECORDS: records}
        if is_over:
            found[RUNS_ENDED] = {row["state"]: row["runs"]}
            found[NEWLY_FAILED] = {"": row["newly_failed"] or 0}
        if row["state"] == Run.State.COMPLETED:
            found[RUN_SECONDS] = _parts(RUN_SECONDS, row)
        _add(tally, row["profile"], found)
    return tally


def batch_rows(batches: QuerySet[Batch], **more: Any) -> QuerySet[Any]:
    """Return the query of sums over batches by profile and state.

    :param more: aggregates to read with them
    """
    timed = _timed(batches, F("finished_at") - F("attempted_at"))
    rows = timed.values("state", profile=F("run__profile"))
    counted = rows.annotate(batches=Count("pk"), **_histogram(BATCH_SECONDS), **more)
    ordered: QuerySet[Any] = counted.order_by("profile", "state")
    return ordered


def counts_of_batches(rows: Iterable[dict[str, Any]]) -> Tally:
    """Return the counts in rows of `batch_rows`."""
    tally: Tally = {}
    for row in rows:
        if row["state"] in CLOSED:
            _add(tally, row["profile"], {BATCHES: {row["state"]: row["batches"]}})
        if row["state"] == Batch.State.DONE:
            _add(tally, row["profile"], {BATCH_SECONDS: _parts(BATCH_SECONDS, row)})
    return tally


def counts_of_stages(batches: QuerySet[Batch]) -> Tally:
    """Return the times of the stages that are done, among all that have these batches.

    Cost: one query.
    """
    stages = batches.values("run", "stage").annotate(
        begun=Min("attempted_at"),
        ended=Max("finished_at"),
        undone=Count("pk", filter=Q(state=Batch.State.OPEN)),
    )
    done = _timed(stages.filter(undone=0), F("ended") - F("begun")).order_by()
    return {"": {STAGE_SECONDS: _parts(STAGE_SECONDS, done.aggregate(**_histogram(STAGE_SECONDS)))}}


def counts_of_comparisons(comparisons: QuerySet[Comparison]) -> Tally:
    """Return the results of comparisons. Cost: one query."""
    completed = Q(state=Comparison.State.COMPLETED)
    found = comparisons.aggregate(
        same=Count("pk", filter=completed & Q(differences=0)),
        different=Count("pk", filter=completed & Q(differences__gt=0)),
        failed=Count("pk", filter=Q(state=Comparison.State.FAILED)),
        rows=Sum("differences"),
    )
    results = {result: found[result] for result in COMPARED}
    return {"": {COMPARISONS: results, COMPARISON_DIFFERENCES: {"": found["rows"] or 0}}}


def added(one: Counts, other: Counts) -> Counts:
    """Return the sums of two counts."""
    return {
        counter: {
            label: one.get(counter, {}).get(label, 0) + other.get(counter, {}).get(label, 0)
            for label in {**one.get(counter, {}), **other.get(counter, {})}
        }
        for counter in {**one, **other}
    }


def summed(tallies: Iterable[Tally]) -> Tally:
    """Return the sums of several tallies."""
    total: Tally = {}
    for tally in tallies:
        for profile, counts in tally.items():
            _add(total, profile, counts)
    return total


def _add(tally: Tally, profile: str, counts: Counts) -> None:
    tally[profile] = added(tally.get(profile, {}), counts)


def _timed(rows: QuerySet[Any], duration: Any) -> QuerySet[Any]:
    timed: QuerySet[Any] = rows.annotate(duration=ExpressionWrapper(duration, output_field=DurationField()))
    return timed


def _histogram(counter: str) -> dict[str, Any]:
    """Return the aggregates for `_parts`. Rows without a duration are in no bucket."""
    return {
        "total": Sum("duration"),
        "timed": Count("duration"),
        **{
            f"up_to_{number}": Count("duration", filter=Q(duration__lte=datetime.timedelta(seconds=end)))
            for number, end in enumerate(BUCKETS_SECONDS[counter])
        },
    }


def _parts(counter: str, row: Mapping[str, Any]) -> dict[str, float]:
    ends = BUCKETS_SECONDS[counter]
    buckets = {str(end): row[f"up_to_{number}"] for number, end in enumerate(ends)}
    return {**buckets, NUMBER: row["timed"], SUM: row["total"].total_seconds() if row["total"] else 0.0}


def buckets_of(counter: str, parts: Mapping[str, float]) -> tuple[int, ...]:
    """Return a histogram's cumulative buckets; the last one counts all.

    Counts that were kept under other ends, by an earlier release, are in the next higher bucket.
    """
    ends = sorted((float(label), number) for label, number in parts.items() if label not in (NUMBER, SUM))
    return (
        *(
            int(max((number for kept, number in ends if kept <= end), default=0))
            for end in BUCKETS_SECONDS[counter]
        ),
        int(parts.get(NUMBER, 0)),
    )
