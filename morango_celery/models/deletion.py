"""Deletion of runs and comparisons, which leaves their share in the counters behind."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import Any

from django.db import models, transaction

from morango_celery.deserialization.locks import take_write_lock
from morango_celery.django_compat import delete_unread
from morango_celery.models.batch import Batch
from morango_celery.models.comparison import Comparison, Comparisons
from morango_celery.models.counts import (
    batch_rows,
    counts_of_batches,
    counts_of_comparisons,
    counts_of_runs,
    counts_of_stages,
    run_rows,
    summed,
)
from morango_celery.models.deleted_counts import DeletedCounts
from morango_celery.models.run import Run, Runs
from morango_celery.stream import chunked

ROWS_PER_STATEMENT = 1000
"""Largest number of rows that one statement deletes."""

Deleted = tuple[int, dict[str, int]]
"""Number of deleted rows, of all models and by model, as Django returns it."""


def delete_runs(runs: models.QuerySet[Any]) -> Deleted:
    """Delete runs with their batches, in one transaction, and keep their counts.

    Cost: about 20 statements for each `ROWS_PER_STATEMENT` runs, and one for as many batches.
    """
    deleted: Counter[str] = Counter()
    with transaction.atomic():
        take_write_lock()
        _lock_open_batches(runs)
        for run_ids in _locked(runs):
            chosen: models.QuerySet[Any] = Run.objects.filter(pk__in=run_ids)
            batches = Batch.objects.filter(run__in=run_ids)
            DeletedCounts.keep(
                summed(
                    [
                        counts_of_runs(run_rows(chosen)),
                        counts_of_batches(batch_rows(batches)),
                        counts_of_stages(batches),
                    ]
                )
            )
            while number := _delete_some(batches):
                deleted[Batch._meta.label] += number
            deleted.update(models.QuerySet[Any].delete(chosen)[1])
    return sum(deleted.values()), dict(deleted)


def delete_comparisons(comparisons: models.QuerySet[Any]) -> Deleted:
    """Delete comparisons, in one transaction, and keep their counts."""
    deleted: Counter[str] = Counter()
    with transaction.atomic():
        take_write_lock()
        for ids in _locked(comparisons):
            chosen: models.QuerySet[Any] = Comparison.objects.filter(pk__in=ids)
            DeletedCounts.keep(counts_of_comparisons(chosen))
            deleted.update(models.QuerySet[Any].delete(chosen)[1])
    return sum(deleted.values()), dict(deleted)


def _delete_some(batches: models.QuerySet[Batch]) -> int:
    """Delete batches in one statement, without reading them, and return their number.

    Their runs have to be deleted in the same transaction.
    """
    some = Batch.objects.filter(pk__in=batches.values("pk")[:ROWS_PER_STATEMENT])
    return delete_unread(some, some.db)


def _lock_open_batches(runs: models.QuerySet[Any]) -> None:
    """Lock open batches before their runs, as workers do: each waits for the other otherwise."""
    of_runs = Batch.objects.filter(run__in=runs.order_by().values("pk"), state=Batch.State.OPEN)
    list(of_runs.select_for_update().order_by("pk").values_list("pk", flat=True))


def _locked(rows: models.QuerySet[Any]) -> Sequence[list[int]]:
    """Lock rows until the end of the transaction, and return their primary keys in chunks.

    Nobody changes a count between the moment at which it is kept and the end of its row.
    """
    locked = rows.model._base_manager.select_for_update().filter(pk__in=rows.order_by().values("pk"))
    return list(chunked(locked.order_by("pk").values_list("pk", flat=True), ROWS_PER_STATEMENT))


Runs.deleter = delete_runs
Comparisons.deleter = delete_comparisons
