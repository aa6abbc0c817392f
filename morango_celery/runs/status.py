"""Status of runs for outside observers: progress, speed, and signs of life."""

from __future__ import annotations

import datetime
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, replace
from typing import Any

from django.db.models import BigIntegerField, Count, Exists, OuterRef, Q, QuerySet, Subquery, Value
from morango.models.core import Store

from morango_celery import clock
from morango_celery.conf import settings
from morango_celery.deserialization import StoreModelSource
from morango_celery.deserialization.quarantine import is_quarantined
from morango_celery.errors import UnknownRunError
from morango_celery.models import Batch, Run
from morango_celery.runs.plan import RETRY_MARK, takes
from morango_celery.runs.recovery import IN_PROCESS_STALLED_FACTOR

RECENT = 20
"""Number of runs in a list by default."""


@dataclass(frozen=True)
class Status:
    """A run at one moment."""

    run: Run
    now: datetime.datetime
    last_activity_at: datetime.datetime
    """Time at which a batch was last begun or done, or a stage opened; before that, the run's creation."""
    stalled_after_seconds: float
    """Time without such a sign after which an unfinished run counts as stalled."""
    waiting: int | None = None
    """Records that are still to be tried, handed out or not; None if they weren't counted."""
    quarantined: int | None = None
    """Records under its filter that are left alone; None if they weren't counted."""
    left: int | None = None
    """Records under its filter that wait for another run to take them, without an error; None but for a run
    that failed or was cancelled, or if they weren't counted."""

    @property
    def idle_seconds(self) -> float:
        """Time since the last sign of life; since its end, for a run that has ended."""
        return max((self.now - self.last_activity_at).total_seconds(), 0.0)

    @property
    def is_stalled(self) -> bool:
        if self.run.has_ended or self.run.sharing or self.run.paused:
            return False
        return self.idle_seconds > self.stalled_after_seconds

    @property
    def state(self) -> str:
        """The run's state, or "paused" or "stalled" in place of an unfinished one's."""
        if self.run.paused:
            return "paused"
        return "stalled" if self.is_stalled else str(self.run.state)

    @property
    def total(self) -> int:
        """Number of all records; of those handed out, if the waiting ones weren't counted."""
        return (
            self.run.records if self.waiting is None else max(self.run.records, self.run.done + self.waiting)
        )

    @property
    def seconds(self) -> float | None:
        """Time since the run began, up to its end; None if it hasn't begun."""
        if self.run.started_at is None:
            return None
        return max(((self.run.finished_at or self.now) - self.run.started_at).total_seconds(), 0.001)

    @property
    def records_per_second(self) -> float | None:
        """Average since the run began; None while no record is done."""
        return self.run.done / self.seconds if self.seconds and self.run.done else None

    @property
    def seconds_left(self) -> float | None:
        """Time that the rest takes at the average speed; None if that can't be known, as of a stalled run."""
        if self.run.has_ended or self.is_stalled or self.waiting is None or not self.records_per_second:
            return None
        return (self.total - self.run.done) / self.records_per_second


def status_of(run_id: int, stalled_after_seconds: float | None = None) -> Status:
    """Return the status of one run, with counts of its waiting, quarantined and left records.

    :param stalled_after_seconds: None for the time after which recovery takes a run up
    :raises UnknownRunError: the ledger doesn't have it
    Cost: three queries; two of them count dirty records under the run's filter.
    """
    found = statuses([run_id], stalled_after_seconds)
    if not found:
        raise UnknownRunError(f"The ledger has no run {run_id}.")
    run = found[0].run
    return replace(found[0], quarantined=count_quarantined(run), left=count_left(run))


def count_left(run: Run) -> int | None:
    """Return how many records a run that failed or was cancelled has left to others; None for other runs.

    Their earlier errors were cleared when it began, so they aren't among the records in error.
    Cost: one query for such a run, which counts dirty records under its filter.
    """
    return _waiting(run).count() if run.state in (Run.State.FAILED, Run.State.CANCELLED) else None


def count_quarantined(run: Run | None = None) -> int:
    """Return how many records are left alone until they change or somebody asks.

    :param run: to count under its filter; None to count all
    """
    if run is None:
        records: QuerySet[Any] = Store.objects.filter(dirty_bit=True)
    else:
        source = StoreModelSource(run.profile, run.sync_filter)
        records = source.records().filter(source.condition)
    return records.filter(is_quarantined()).count()


def statuses(
    run_ids: Collection[int],
    stalled_after_seconds: float | None = None,
    *,
    counted: bool = True,
    prepared: Callable[[QuerySet[Run]], QuerySet[Run]] = lambda runs: runs,
) -> list[Status]:
    """Return the statuses of those of these runs that the ledger has, the newest first.

    :param counted: True to count the waiting records of each unfinished run
    :param prepared: changes the query of the runs, to read more of them or less
    Cost: one query; if `counted`, one more, which counts the dirty records under the filter of each.
    """
    runs = list(with_attempts(prepared(Run.objects.filter(pk__in=run_ids).order_by("-pk"))))
    waiting = _count_waiting([run for run in runs if not run.has_ended]) if counted else {}
    return [_status(run, stalled_after_seconds, waiting.get(run.pk)) for run in runs]


def recent(number: int = RECENT, stalled_after_seconds: float | None = None) -> list[Status]:
    """Return the statuses of the newest runs, the newest first.

    Cost: one query.
    """
    runs = with_attempts(Run.objects.order_by("-pk"))[:number]
    return [_status(run, stalled_after_seconds) for run in runs]


def waits_for_worker() -> Q:
    """Return the condition for pending runs that wait for a worker, not for another run or a pause."""
    return Q(state=Run.State.PENDING, blocked_by=None, coalesced_into=None, in_process=False, paused=False)


def unfinished() -> QuerySet[Run]:
    return Run.objects.filter(state__in=Run.UNFINISHED)


def left_to_newer_version() -> QuerySet[Run]:
    """Return the runs that this version leaves to a newer one; those in unknown states may have ended."""
    return Run.objects.exclude(state__in=Run.ENDED).exclude(Run.known(), state__in=Run.UNFINISHED)


def paused() -> QuerySet[Run]:
    """Return the unfinished runs that a pause holds, as far as somebody has looked."""
    return unfinished().filter(paused=True)


def stalled(stalled_after_seconds: float | None = None) -> QuerySet[Run]:
    """Return the unfinished runs without a sign of life for too long.

    Those that wait for another one, or for the end of a pause, are left out.
    """
    idle = Q(pk=None)
    for in_process in (False, True):
        late = clock.now(-_stalled_after(in_process, stalled_after_seconds))
        begun = Batch.objects.filter(run=OuterRef("pk"), state=Batch.State.OPEN, attempted_at__gte=late)
        idle |= Q(in_process=in_process, last_activity_at__lt=late) & ~Q(Exists(begun))
    return unfinished().filter(idle, coalesced_into=None, blocked_by=None, paused=False)


def _waiting(run: Run) -> QuerySet[Any]:
    """Return the records that a run has not tried yet, as `PendingRecordSource` finds them in a begun run."""
    if run.state == Run.State.PENDING:
        source = StoreModelSource(run.profile, run.sync_filter)
        return source.records().filter(source.condition, takes(run))
    source = StoreModelSource(run.profile, run.sync_filter, skip_errored=not run.retry_errors)
    records = source.records().filter(source.condition)
    return records.filter(deserialization_error=RETRY_MARK) if run.retry_errors else records


def _count_waiting(runs: Sequence[Run]) -> dict[int, int]:
    if not runs:
        return {}
    first, *others = (
        _waiting(run)
        .values(run=Value(run.pk, output_field=BigIntegerField()))
        .annotate(count=Count("*"))
        .values_list("run", "count")
        for run in runs
    )
    found = dict(first.union(*others, all=True))
    return {run.pk: max(found[run.pk] - run.conflicted, 0) for run in runs}


def with_attempts(runs: QuerySet[Run]) -> QuerySet[Any]:
    """Return the runs with the time of the last attempt at an open batch, `attempted_at`, and `now`."""
    begun = Batch.objects.filter(run=OuterRef("pk"), state=Batch.State.OPEN).exclude(attempted_at=None)
    return runs.annotate(
        attempted_at=Subquery(begun.order_by("-attempted_at").values("attempted_at")[:1]), now=clock.now()
    )


def _status(run: Any, stalled_after_seconds: float | None, waiting: int | None = None) -> Status:
    last_activity_at = run.finished_at or max(run.last_activity_at, run.attempted_at or run.last_activity_at)
    limit_seconds = _stalled_after(run.in_process, stalled_after_seconds)
    return Status(run, run.now, last_activity_at, limit_seconds, waiting)


def _stalled_after(in_process: bool, seconds: float | None) -> float:
    if seconds is not None:
        return seconds
    return settings.STALLED_AFTER_SECONDS * (IN_PROCESS_STALLED_FACTOR if in_process else 1)
