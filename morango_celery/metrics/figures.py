"""Figures of all metrics, by eight queries on a ledger of any size."""

from __future__ import annotations

import datetime
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import groupby
from typing import Any

from django.db.models import Count, DurationField, ExpressionWrapper, F, Max, Min, Q, QuerySet, Sum
from morango.models.core import Store

from morango_celery import clock
from morango_celery.comparison.shadow import totals
from morango_celery.deserialization.quarantine import is_quarantined
from morango_celery.metrics import names
from morango_celery.metrics.names import Metric
from morango_celery.models import Batch, Pause, Run
from morango_celery.runs.status import paused, stalled

FINAL_AT_THE_END = ("conflicted", "failed")
"""Counts of a run that a later pass may lower."""


@dataclass(frozen=True)
class Figure:
    """A number, or a histogram, of one metric with one set of labels."""

    metric: Metric
    labels: tuple[str, ...]
    value: float
    """Number, or the sum of a histogram."""
    buckets: tuple[int, ...] = ()
    """Cumulative counts of a histogram's buckets; the last one counts all."""


def figures() -> Iterator[Figure]:
    """Yield all figures from the present ledger.

    Cost: eight queries. One reads all runs and two all batches, in the database; one counts dirty records.
    """
    yield from _of_runs()
    yield from _of_batches()
    yield from _of_stages()
    yield Figure(names.RUNS_STALLED, (), stalled().count())
    yield Figure(names.RUNS_PAUSED, (), paused().count())
    yield Figure(names.PAUSES, (), Pause.objects.count())
    yield from _of_records()
    yield from _of_comparisons()


def _of_runs() -> Iterator[Figure]:
    counted = [*Run.COUNTS]
    runs = _timed(Run.objects.all(), F("finished_at") - F("created_at"))
    rows = runs.values("profile", "state").annotate(
        runs=Count("pk"),
        oldest=Min("created_at"),
        now=Max(clock.now()),
        **_histogram(names.RUN_SECONDS),
        **{f"sum_{name}": Sum(name) for name in counted},
    )
    waited = 0.0
    for profile, states in groupby(rows.order_by("profile", "state"), key=lambda row: row["profile"]):
        totals = dict.fromkeys(counted, 0)
        for row in states:
            is_over = row["state"] not in Run.UNFINISHED
            yield Figure(names.RUNS_ENDED if is_over else names.RUNS, (profile, row["state"]), row["runs"])
            for name in counted:
                if is_over or name not in FINAL_AT_THE_END:
                    totals[name] += row[f"sum_{name}"]
            if row["state"] == Run.State.COMPLETED:
                yield _read(names.RUN_SECONDS, row, profile)
            elif row["state"] == Run.State.PENDING:
                waited = max(waited, (row["now"] - row["oldest"]).total_seconds())
        yield from (Figure(names.RECORDS, (profile, name), total) for name, total in totals.items())
    yield Figure(names.OLDEST_PENDING, (), waited)


def _of_batches() -> Iterator[Figure]:
    batches = _timed(Batch.objects.all(), F("finished_at") - F("attempted_at"))
    rows = batches.values("state", profile=F("run__profile")).annotate(
        batches=Count("pk"),
        unfinished=Count(
            "pk", filter=Q(run__state__in=Run.UNFINISHED)
        ),  # a cancelled run's batches stay open
        **_histogram(names.BATCH_SECONDS),
    )
    for row in rows.order_by("profile", "state"):
        profile, state = row["profile"], row["state"]
        if state == Batch.State.OPEN:
            yield Figure(names.BATCHES_OPEN, (profile,), row["unfinished"])
            continue
        yield Figure(names.BATCHES, (profile, state), row["batches"])
        if state == Batch.State.DONE:
            yield _read(names.BATCH_SECONDS, row, profile)


def _of_stages() -> Iterator[Figure]:
    stages = Batch.objects.values("run", "stage").annotate(
        begun=Min("attempted_at"),
        ended=Max("finished_at"),
        undone=Count("pk", filter=Q(state=Batch.State.OPEN)),
    )
    done = _timed(stages.filter(undone=0), F("ended") - F("begun")).order_by()
    yield _read(names.STAGE_SECONDS, done.aggregate(**_histogram(names.STAGE_SECONDS)))


def _of_records() -> Iterator[Figure]:
    in_error = Q(deserialization_exception__isnull=False)
    dirty = Store.objects.filter(dirty_bit=True).values("profile")
    counted = dirty.annotate(
        records=Count("pk"),
        in_error=Count("pk", filter=in_error),
        quarantined=Count("pk", filter=is_quarantined()),
    )
    for row in counted.order_by("profile"):
        yield Figure(names.DIRTY_RECORDS, (row["profile"], "yes"), row["in_error"])
        yield Figure(names.DIRTY_RECORDS, (row["profile"], "no"), row["records"] - row["in_error"])
        yield Figure(names.QUARANTINED_RECORDS, (row["profile"],), row["quarantined"])


def _of_comparisons() -> Iterator[Figure]:
    """Yield zeros, too: a counter that begins with a difference would show Prometheus no increase."""
    found = totals()
    for result in ("same", "different", "failed"):
        yield Figure(names.COMPARISONS, (result,), getattr(found, result))
    yield Figure(names.COMPARISON_DIFFERENCES, (), found.differences)


def _timed(rows: QuerySet[Any], duration: Any) -> QuerySet[Any]:
    timed: QuerySet[Any] = rows.annotate(duration=ExpressionWrapper(duration, output_field=DurationField()))
    return timed


def _histogram(metric: Metric) -> dict[str, Any]:
    """Return the aggregates for `_read`. Rows without a duration are in no bucket."""
    return {
        "total": Sum("duration"),
        "timed": Count("duration"),
        **{
            f"up_to_{number}": Count("duration", filter=Q(duration__lte=datetime.timedelta(seconds=end)))
            for number, end in enumerate(metric.buckets_seconds)
        },
    }


def _read(metric: Metric, row: dict[str, Any], *labels: str) -> Figure:
    total = row["total"].total_seconds() if row["total"] else 0.0
    counts = [row[f"up_to_{number}"] for number, _ in enumerate(metric.buckets_seconds)]
    return Figure(metric, labels, total, (*counts, row["timed"]))
