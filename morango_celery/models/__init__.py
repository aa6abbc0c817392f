"""The ledger: runs as they were requested, the batches handed out for them, results, pauses, comparisons."""

from __future__ import annotations

from morango_celery.models.batch import Batch, hash_of_ids
from morango_celery.models.comparison import Comparison
from morango_celery.models.pause import Pause
from morango_celery.models.record_in_error import RecordInError
from morango_celery.models.run import Run

__all__ = ["Batch", "Comparison", "Pause", "RecordInError", "Run", "hash_of_ids"]
