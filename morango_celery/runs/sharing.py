"""Sharing of work among runs under one filter: no run hands out records that another one has handed out.

The devices of a school all push under the same filter, and a run hands out all waiting records under it, no
matter which device they are from. So before a run begins,
- it coalesces the runs under its filter that have not begun: all their records are in the Store already;
- it is blocked while an earlier run under its filter goes on, which has handed out the same records. When
  that run ends, all runs that have come meanwhile become one.

A run isn't blocked by one under a wider filter: one learner's device has few records.
Runs that leave out errors, or take only errors, runs in process, and runs that a newer version has written
have no part in this.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from typing import Any

from django.db.models import Exists, F, OuterRef, Q, QuerySet
from morango.models.certificates import Filter

from morango_celery.db.prepared import Columns, Statement, kept, number, selecting, text
from morango_celery.models import Run
from morango_celery.reading.prefixes import FEW, outermost, starts_with_any


def ready() -> Q:
    """Return the condition that a run waits for no other one that goes on, as those in unknown states may."""
    others = Run.objects.exclude(state__in=Run.ENDED)
    holds_it = Q(pk=OuterRef("coalesced_into")) | Q(pk=OuterRef("blocked_by"))
    return Q(coalesced_into=None, blocked_by=None) | ~Q(Exists(others.filter(holds_it)))


def take_part(run: Run) -> bool:
    """Coalesce other runs into a pending one that has just counted an attempt, or note that it is blocked.

    The transaction holds the run's row, and waits for no other row.

    :returns: False if the run is blocked; its attempt is uncounted then
    Cost: one query; two statements more for runs that are coalesced, one if the run is blocked.
    """
    if run.in_process or run.skip_erroring or run.retry_errors:
        return True
    others = list(_others_within(run))
    earlier = [other for other in others if _goes_before(other, run)]
    idle = [] if earlier else [other.pk for other in others if _has_not_begun(other)]
    free = _locked(idle)
    # A run with a held row is about to begin; the first one of several such runs goes on
    earlier += Run.objects.filter(pk__in=set(idle) - free, pk__lt=run.pk)[:1] if len(free) < len(idle) else []
    if earlier:
        Run.objects.filter(pk=run.pk).update(attempts=F("attempts") - 1, blocked_by=earlier[0])
        return False
    if free:
        taken_in = Run.objects.filter(Q(pk__in=free) | Q(coalesced_into__in=free))
        number = taken_in.update(coalesced_into=run, blocked_by=None, coalesced_runs=0)
        Run.objects.filter(pk=run.pk).update(coalesced_runs=F("coalesced_runs") + number)
    return True


def would_wait_for(run: Run) -> int | None:
    """Return the number of the run that one which isn't in the ledger would have to wait for, or None.

    Cost: one query; none for a run that has no part in sharing.
    """
    if run.in_process or run.skip_erroring or run.retry_errors:
        return None
    newest = Run(pk=_AFTER_ALL, profile=run.profile, filter=run.filter, serialize_first=run.serialize_first)
    return next((other.pk for other in _others_within(newest) if _goes_before(other, newest)), None)


_AFTER_ALL = 2**63 - 1
"""A primary key after those of all runs."""


def _locked(idle: Collection[int]) -> set[int]:
    """Lock runs that have not begun, except for those that others hold, and return their primary keys."""
    if not idle:
        return set()
    still_idle = Q(attempts=0) | Q(blocked_by__isnull=False)
    pending = Run.objects.filter(still_idle, pk__in=idle, state=Run.State.PENDING, coalesced_into=None)
    return set(pending.select_for_update(skip_locked=True).values_list("pk", flat=True))


OTHER = Columns(Run, only=("id", "state", "filter", "attempts", "blocked_by_id"))
"""Columns that are read of other runs."""


def _others_within(run: Run) -> Iterator[Run]:
    """Yield the other unfinished runs under the run's filter that share work, the earliest first."""
    own = run.sync_filter
    prefixes = None if own is None else outermost(own)
    if prefixes is None or len(prefixes) <= FEW:
        statement = _finding_others(run.serialize_first, None if prefixes is None else len(prefixes))
        rows = statement.rows(OTHER.names, run.pk, run.profile, *(prefixes or ()))
    else:
        rows = list(_others(run.pk, run.profile, prefixes, serialize_first=run.serialize_first))
    for other in map(OTHER.instance, rows):
        if own is None or _is_within(other.sync_filter, own):
            yield other


@kept
def _finding_others(serialize_first: bool, prefixes: int | None) -> Statement:
    """Return the query of `_others_within`.

    :param prefixes: number of prefixes of the filter; None for no filter
    """
    profile, *marks = map(text, range(1, 2 + (prefixes or 0)))
    return selecting(
        _others(number(0), profile, None if prefixes is None else marks, serialize_first=serialize_first)
    )


def _others(pk: int, profile: str, prefixes: Sequence[str] | None, *, serialize_first: bool) -> Any:
    others = Run.objects.filter(
        Run.known(),
        profile=profile,
        state__in=Run.UNFINISHED,
        coalesced_into=None,
        in_process=False,
        skip_erroring=False,
        retry_errors=False,
        serialize_first=serialize_first,
    ).exclude(pk=pk)
    if prefixes is not None:
        others = others.filter(starts_with_any("filter", prefixes), filter__isnull=False)
    return others.order_by("pk").values_list(*OTHER.names)


def _is_within(narrow: Filter | None, wide: Filter) -> bool:
    return narrow is not None and bool(narrow.is_subset_of(wide))


def _has_not_begun(run: Run) -> bool:
    return run.state == Run.State.PENDING and (run.attempts == 0 or run.blocked_by_id is not None)


def _goes_before(other: Run, run: Run) -> bool:
    """Return True if `other` has to end before `run` begins; its filter lies within that of `run`.

    Of two runs that are about to begin, the earlier one goes first, so that no two wait for each other.
    """
    if other.state == Run.State.RUNNING:
        return other.pk < run.pk or other.filter == run.filter
    return other.pk < run.pk and not _has_not_begun(other)


def completed_with(run: Run) -> QuerySet[Run]:
    """Return the runs that ended with this one, and are not finalized yet."""
    return Run.objects.filter(Run.known(), coalesced_into=run, finalized=False, state__in=Run.ENDED)


def released(run: Run) -> list[Run]:
    """Return the runs to send a message for after the end of this one: the first of each filter.

    The first coalesces the others, or goes before them. Recovery sends any that are left.
    Cost: nothing if no run waited for this one; otherwise one query.
    """
    if not run.has_released:
        return []
    waiting = Run.objects.filter(
        Run.known(),
        ready(),
        profile=run.profile,
        state=Run.State.PENDING,
        in_process=False,
        paused=False,
        sent_at=None,
        overdue_at=None,
    )
    first: dict[str | None, Run] = {}
    for other in waiting.order_by("pk"):
        first.setdefault(other.filter, other)
    return list(first.values())
