"""Passes of a run: failures that other records caused wait again, and errors of earlier runs are cleared."""

from __future__ import annotations

from typing import Any

from django.db.models import Q, QuerySet
from morango.models.core import Store

from morango_celery.deserialization import StoreModelSource
from morango_celery.deserialization.quarantine import is_quarantined
from morango_celery.models import Batch, Run
from morango_celery.reading.cursors import stream
from morango_celery.runs.batching import BATCHES_IN_MEMORY
from morango_celery.runs.plan import RETRY_MARK, retried
from morango_celery.signals import first_pass_failed


def begin_next_pass(run: Run) -> bool:
    """Make the retryable failures wait again, as long as each pass has fewer of them than the one before.

    For example, a model's ``save()`` may want a record of the same model that came later.

    :returns: False if there is no further pass
    """
    if not needs_another_pass(run):
        return False
    failures, before = run.retryable_failures, run.previous_retryable_failures
    if before is None:
        first_pass_failed.send(Run, run=run)
    batches = Batch.objects.filter(run=run, pass_number=run.pass_number).exclude(retryable_ids="")
    for batch in stream(batches.only("retryable_ids"), BATCHES_IN_MEMORY):
        _make_wait(run, Store.objects.filter(id__in=batch.ids_to_retry, dirty_bit=True))
    run.pass_number += 1
    run.previous_retryable_failures = failures
    run.retryable_failures = 0
    run.step = 0
    run.records -= failures
    run.failed -= failures
    if not run.retry_errors:
        # Conflicted records are dirty without an error, as the failures are now: they are handed out and
        # counted again, too.
        run.records -= run.conflicted
        run.conflicted = 0
    return True


def needs_another_pass(run: Run) -> bool:
    failures, before = run.retryable_failures, run.previous_retryable_failures
    return failures > 0 and (before is None or failures < before)


def forget_errors(run: Run) -> int:
    """Clear earlier errors: from here on, a dirty record in error failed in this run, or is quarantined.

    A run that only retries errors marks their records, to know them from the others.

    :returns: the number of records that were in error
    """
    everything = StoreModelSource(run.profile, run.sync_filter)
    in_error = ~Q(deserialization_error=None) & retried(run)
    if not run.retry_errors:
        in_error &= ~is_quarantined()
    return _make_wait(run, everything.records().filter(everything.condition, in_error))


def _make_wait(run: Run, records: QuerySet[Any]) -> int:
    mark = RETRY_MARK if run.retry_errors else None
    return records.update(deserialization_error=mark, deserialization_exception=None)
