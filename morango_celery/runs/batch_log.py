"""Lines of the log about batches. Each tells of something that is committed."""

from __future__ import annotations

from django.db import transaction

from morango_celery.deserialization import BatchResult
from morango_celery.log_context import bound, get_logger
from morango_celery.models import Batch
from morango_celery.printable import printable
from morango_celery.upstream import deserialization_log

logger = get_logger(__name__)


def log_attempt_that_ended(batch: Batch, reason: str) -> None:
    """Log an attempt that ended without a result; call it after the commit that noted the reason."""
    with bound(run=batch.run_id, batch=batch.label, attempt=batch.attempts):
        logger.warning("The attempt came to no result: %s.", _first_line(reason))


def log_failures_on_commit(batch: Batch, result: BatchResult) -> None:
    """Log the failed records of a batch, if it has any: one line for all of them."""
    if not result.failures:
        return
    text, models = str(result.failures), result.failures.models
    may_succeed = len(result.retryable_ids)
    later = f" Another pass of the run may save {may_succeed:,} of them." if may_succeed else ""

    def log() -> None:
        with bound(run=batch.run_id, batch=batch.label, attempt=batch.attempts or None):
            deserialization_log.warning(
                "Failed to deserialize Store records, %s of %s: %s.%s",
                f"{result.failed:,}",
                f"{batch.size:,}",
                text,
                later,
                extra={"model": models},
            )

    transaction.on_commit(log)


def log_split_on_commit(batch: Batch, parts: int, reason: str) -> None:
    """Log that a batch was split, and the reason."""

    def log() -> None:
        with bound(run=batch.run_id, batch=batch.label, attempt=batch.attempts):
            logger.warning(
                "The batch of %s records is split into %s, for an attempt came to no result: %s.",
                f"{batch.size:,}",
                parts,
                _first_line(reason),
            )

    transaction.on_commit(log)


def log_quarantined_on_commit(batch: Batch, store_id: str, model_name: str, error: Exception) -> None:
    """Log that the record of a batch is quarantined."""

    def log() -> None:
        with bound(run=batch.run_id, batch=batch.label, attempt=batch.attempts):
            deserialization_log.error(
                "Failed to deserialize Store record %s for good: %s",
                printable(store_id),
                printable(error),
                extra={"model": model_name},
            )

    transaction.on_commit(log)


def _first_line(reason: str) -> str:
    """Return the first line of a text with escaped line breaks: the database may quote values in others."""
    return reason.partition("\\n")[0]
