"""The ledger: runs as they were requested, the batches handed out for them, results, pauses, comparisons."""

from __future__ import annotations

from morango_celery.models.batch import Batch, hash_of_ids
from morango_celery.models.comparison import Comparison
from morango_celery.models.deleted_counts import DeletedCounts
from morango_celery.models.deletion import delete_runs  # noqa: F401  (it gives the queries their `delete`)
from morango_celery.models.pause import Pause
from morango_celery.models.record_in_error import RecordInError
from morango_celery.models.run import Run
from morango_celery.models.worker import Worker

__all__ = [
    "Batch",
    "Comparison",
    "DeletedCounts",
    "Pause",
    "RecordInError",
    "Run",
    "Worker",
    "hash_of_ids",
]
