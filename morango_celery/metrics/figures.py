"""Figures of all metrics, by eleven queries on a ledger of any size."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from django.db.models import Count, Max, Min, Q
from morango.models.core import Store

from morango_celery import clock
from morango_celery.api import runs_in_process
from morango_celery.db.transactions import read_only
from morango_celery.deserialization.quarantine import is_quarantined
from morango_celery.metrics import names
from morango_celery.metrics.names import METRICS, Metric
from morango_celery.models import Batch, Comparison, DeletedCounts, Pause, Run
from morango_celery.models.counts import (
    SUM,
    Tally,
    batch_rows,
    buckets_of,
    counts_of_batches,
    counts_of_comparisons,
    counts_of_runs,
    counts_of_stages,
    run_rows,
    summed,
)
from morango_celery.runs.status import paused, stalled, waits_for_worker
from morango_celery.runs.workers import signs_of_workers
from morango_celery.upstream import profiles


@dataclass(frozen=True)
class Figure:
    """A number, or a histogram, of one metric with one set of labels."""

    metric: Metric
    labels: tuple[str, ...]
    value: float
    """Number, or the sum of a histogram."""
    buckets: tuple[int, ...] = ()
    """Cumulative counts of a histogram's buckets; the last one counts all."""


Gauges = dict[tuple[Metric, tuple[str, ...]], float]
"""Values by metric and labels."""


def figures() -> list[Figure]:
    """Return all figures of the present ledger, deleted rows included.

    All are of one moment: a row that is deleted meanwhile is counted once.

    Cost: eleven queries, in one transaction; nine where no workers are needed. One reads all runs and two all
    batches, in the database; one counts the dirty records.
    """
    with read_only(even_with_one_writer=True):
        runs = list(run_rows(Run.objects.all(), **_waiting()))
        batches = list(batch_rows(Batch.objects.all(), **_unfinished()))
        tally = summed(
            [
                counts_of_runs(runs),
                counts_of_batches(batches),
                counts_of_stages(Batch.objects.all()),
                counts_of_comparisons(Comparison.objects.all()),
                DeletedCounts.tally(),
            ]
        )
        gauges = {
            **_of_runs(runs),
            **{
                (names.BATCHES_OPEN, (row["profile"],)): row["unfinished"]
                for row in batches
                if row["unfinished"]
            },
            (names.RUNS_STALLED, ()): stalled().count(),
            (names.RUNS_PAUSED, ()): paused().count(),
            (names.PAUSES, ()): Pause.objects.count(),
            **_of_workers(),
            **_of_records(),
        }
    known = {*profiles(), *tally, *(labels[0] for _, labels in gauges if labels)} - {""}
    return [*_gauges(gauges, sorted(known)), *_counters(tally, sorted(known))]


def _waiting() -> dict[str, Any]:
    """Return the aggregates for the waiting time of runs that wait for a worker, and for nothing else."""
    return {"oldest": Min("created_at", filter=waits_for_worker()), "now": Max(clock.now())}


def _unfinished() -> dict[str, Any]:
    """Return the aggregate for open batches. Those of a cancelled run stay open, and don't count."""
    open_batches = Q(state=Batch.State.OPEN, run__state__in=Run.UNFINISHED)
    return {"unfinished": Count("pk", filter=open_batches)}


def _of_runs(rows: list[dict[str, Any]]) -> Gauges:
    waited = [(row["now"] - row["oldest"]).total_seconds() for row in rows if row["oldest"]]
    return {
        **{
            (names.RUNS, (row["profile"], row["state"])): row["runs"]
            for row in rows
            if row["state"] in Run.UNFINISHED
        },
        (names.OLDEST_PENDING, ()): max(waited, default=0.0),
    }


def _of_workers() -> Gauges:
    if runs_in_process():
        return {}
    signs = signs_of_workers()
    idle_seconds = math.inf if signs.idle_seconds is None else signs.idle_seconds
    return {(names.WORKERS, ()): signs.number, (names.WORKER_IDLE, ()): idle_seconds}


def _of_records() -> Gauges:
    in_error = Q(deserialization_exception__isnull=False)
    dirty = Store.objects.filter(dirty_bit=True).values("profile")
    counted = dirty.annotate(
        records=Count("pk"),
        in_error=Count("pk", filter=in_error),
        quarantined=Count("pk", filter=is_quarantined()),
    )
    found: Gauges = {}
    for row in counted.order_by("profile"):
        found[names.DIRTY_RECORDS, (row["profile"], "yes")] = row["in_error"]
        found[names.DIRTY_RECORDS, (row["profile"], "no")] = row["records"] - row["in_error"]
        found[names.QUARANTINED_RECORDS, (row["profile"],)] = row["quarantined"]
    return found


def _gauges(found: Gauges, known: list[str]) -> Iterator[Figure]:
    """Yield each gauge, with 0 for each profile and state that has nothing."""
    for metric in METRICS:
        if metric.kind != "gauge":
            continue
        expected = _labels(metric, known) if metric.labels else []
        for labels in sorted({*expected, *(labels for gauge, labels in found if gauge == metric)}):
            yield Figure(metric, labels, found.get((metric, labels), 0))


def _counters(tally: Tally, known: list[str]) -> Iterator[Figure]:
    """Yield each counter and histogram, with 0 for each profile and state that has nothing."""
    for metric in METRICS:
        if metric.kind == "gauge":
            continue
        for labels in _labels(metric, known):
            profile = labels[0] if "profile" in metric.labels else ""
            numbers = tally.get(profile, {}).get(metric.counter, {})
            if metric.kind == "histogram":
                yield Figure(metric, labels, numbers.get(SUM, 0), buckets_of(metric.counter, numbers))
            else:
                yield Figure(metric, labels, numbers.get(labels[-1] if metric.values else "", 0))


def _labels(metric: Metric, known: list[str]) -> list[tuple[str, ...]]:
    """Return all combinations of a metric's labels."""
    found: list[tuple[str, ...]] = [(profile,) for profile in known] if "profile" in metric.labels else [()]
    return [(*labels, value) for labels in found for value in metric.values] if metric.values else found
