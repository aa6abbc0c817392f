"""Pruning: runs and comparisons that ended long ago are deleted. Their share in the counters is kept."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

from django.db import transaction
from django.db.models import Count, Exists, OuterRef, Q, QuerySet
from morango.constants import transfer_stages, transfer_statuses
from morango.models.core import TransferSession

from morango_celery import clock
from morango_celery.conf import settings
from morango_celery.deserialization.locks import take_write_lock
from morango_celery.models import Batch, Comparison, Run
from morango_celery.runs.overdue import lock_free

ROWS_AT_ONCE = 100
"""Largest number of runs, or comparisons, that one transaction deletes."""

BATCHES_AT_ONCE = 5000
"""Number of batches from which a transaction deletes no further run."""

TRANSACTIONS_PER_RECOVERY = 10

DAY_SECONDS = 24 * 60 * 60


@dataclass(frozen=True)
class Pruned:
    """Numbers of deleted rows."""

    runs: int = 0
    batches: int = 0
    comparisons: int = 0

    @property
    def rows(self) -> int:
        """Number of runs and comparisons."""
        return self.runs + self.comparisons


def prune_runs(
    older_than_seconds: float,
    *,
    on_progress: Callable[[Pruned], None] = lambda pruned: None,
    should_stop: Callable[[Pruned], bool] = lambda pruned: False,
) -> Pruned:
    """Delete the runs and comparisons that ended so long ago, with the runs' batches.

    A run is kept as long as it isn't finalized, its transfer session has not got its outcome, or another
    unfinished run refers to it; and if a newer version has written it.

    :param on_progress: called after each transaction
    :param should_stop: asked after each transaction; the next call goes on
    Cost: about 20 statements for `ROWS_AT_ONCE` runs, and one for a thousand batches.
    Twice, and at the same time: safe; rows that another process is deleting are skipped.
    """
    pruned = Pruned()
    for kind in (_prune_next_runs, _prune_next_comparisons):
        last: int | None = 0
        while last is not None and not should_stop(pruned):
            last, pruned = kind(older_than_seconds, last, pruned)
            on_progress(pruned)
    return pruned


def count_prunable(older_than_seconds: float) -> int:
    """Return the number of runs and comparisons that `prune_runs` would delete."""
    return _prunable_runs(older_than_seconds).count() + _ended_comparisons(older_than_seconds).count()


def count_kept(older_than_seconds: float) -> int:
    """Return the number of runs that ended so long ago, and that a session or another run still waits for."""
    prunable = _prunable_runs(older_than_seconds)
    return _ended_runs(older_than_seconds).exclude(pk__in=prunable.values("pk")).count()


def prune_as_configured() -> None:
    """Delete old runs and comparisons if PRUNE_AFTER_DAYS says so; a few at a time, since recovery does it.

    Cost: nothing without that setting; else a few statements if there is nothing to delete.
    """
    days = settings.PRUNE_AFTER_DAYS
    if days is None:
        return
    transactions = iter(range(TRANSACTIONS_PER_RECOVERY))
    prune_runs(days * DAY_SECONDS, should_stop=lambda pruned: next(transactions, None) is None)


def _ended_runs(older_than_seconds: float) -> QuerySet[Run]:
    ended = Run.objects.filter(Run.known(), state__in=Run.ENDED)
    return ended.filter(finished_at__lt=clock.now(-older_than_seconds))


def _prunable_runs(older_than_seconds: float) -> QuerySet[Run]:
    """Return the runs that ended long enough ago, and that nobody waits for."""
    session = TransferSession.objects.filter(
        pk=OuterRef("transfer_session_id"), active=True, transfer_stage=transfer_stages.DESERIALIZING
    ).exclude(transfer_stage_status__in=(transfer_statuses.COMPLETED, transfer_statuses.ERRORED))
    related = Q(blocked_by=OuterRef("pk")) | Q(coalesced_into=OuterRef("pk"))
    unfinished = Run.objects.filter(related).exclude(state__in=Run.ENDED)
    ended = _ended_runs(older_than_seconds).filter(session_notified=True, finalized=True)
    return ended.filter(~Exists(session), ~Exists(unfinished))


def _ended_comparisons(older_than_seconds: float) -> QuerySet[Comparison]:
    ended = Comparison.objects.filter(Comparison.known(), state__in=Comparison.ENDED)
    return ended.filter(finished_at__lt=clock.now(-older_than_seconds))


def _prune_next_runs(older_than_seconds: float, last: int, pruned: Pruned) -> tuple[int | None, Pruned]:
    """Delete the next runs in one transaction.

    :param last: primary key of the last run that was looked at
    :returns: that of the last one now, or None if there are no more; and the numbers so far
    """
    prunable = _prunable_runs(older_than_seconds)
    numbers = list(prunable.filter(pk__gt=last).order_by("pk").values_list("pk", flat=True)[:ROWS_AT_ONCE])
    if not numbers:
        return None, pruned
    chosen = _up_to_enough_batches(numbers)
    with transaction.atomic():
        take_write_lock()
        deleted = _delete(lock_free(prunable.filter(pk__in=chosen)), Run.objects.all())
    return chosen[-1], replace(
        pruned,
        runs=pruned.runs + deleted.get(Run._meta.label, 0),
        batches=pruned.batches + deleted.get(Batch._meta.label, 0),
    )


def _up_to_enough_batches(run_ids: list[int]) -> list[int]:
    """Return the first runs that have `BATCHES_AT_ONCE` batches together."""
    counted = Batch.objects.filter(run__in=run_ids).values_list("run").annotate(number=Count("pk")).order_by()
    sizes = dict(counted)
    total = 0
    for place, run_id in enumerate(run_ids, start=1):
        total += sizes.get(run_id, 0)
        if total >= BATCHES_AT_ONCE:
            return run_ids[:place]
    return run_ids


def _prune_next_comparisons(
    older_than_seconds: float, last: int, pruned: Pruned
) -> tuple[int | None, Pruned]:
    """Delete the next comparisons in one transaction; as `_prune_next_runs` does it with runs."""
    ended = _ended_comparisons(older_than_seconds)
    numbers = list(ended.filter(pk__gt=last).order_by("pk").values_list("pk", flat=True)[:ROWS_AT_ONCE])
    if not numbers:
        return None, pruned
    with transaction.atomic():
        take_write_lock()
        deleted = _delete(lock_free(ended.filter(pk__in=numbers)), Comparison.objects.all())
    number = pruned.comparisons + deleted.get(Comparison._meta.label, 0)
    return numbers[-1], replace(pruned, comparisons=number)


def _delete(locked: QuerySet[Any], rows: QuerySet[Any]) -> dict[str, int]:
    """Lock rows that nobody else holds, and delete them."""
    return rows.filter(pk__in=list(locked.values_list("pk", flat=True))).delete()[1]
