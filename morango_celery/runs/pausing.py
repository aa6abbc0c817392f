"""Pauses: what they hold waits in the ledger until somebody resumes it, and nothing of it is begun or sent.

Each statement that begins work does so only if no pause is in force. Where one is, a worker looks whether it
holds the run (`hold`), and begins otherwise. So pauses cost nothing as long as there are none. A batch that
has begun is completed, and may complete its run.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass

from django.db import transaction
from django.db.models import Exists, Q, QuerySet
from morango.models.certificates import Filter

from morango_celery.deserialization.locks import take_write_lock
from morango_celery.errors import PausedError, UsageError
from morango_celery.models import Batch, Pause, Run
from morango_celery.printable import printable
from morango_celery.reading.prefixes import outermost
from morango_celery.runs.overdue import note_unsent

MARKED_AT_ONCE = 1000
"""Number of runs that one statement marks."""


@dataclass(frozen=True)
class Resumed:
    """The result of `resume`."""

    pauses: int
    """Number of pauses that were ended."""
    run_ids: Sequence[int]
    """Runs that no pause holds any more; they have to be sent."""


def nothing_is_paused() -> Q:
    """Return the condition that no pause is in force, for statements that begin work."""
    return ~Q(Exists(Pause.objects.all()))


def in_force() -> Sequence[Pause]:
    """Return all pauses, the oldest first. Cost: one query."""
    return list(Pause.objects.order_by("pk"))


def holder(run: Run, pauses: Sequence[Pause]) -> Pause | None:
    """Return the first of the pauses that holds the run."""
    return next((each for each in pauses if each.holds(run)), None)


def pause(profile: str = "", sync_filter: Filter | None = None, reason: str = "") -> Pause:
    """Hold runs from now on: all of them, a profile's, or those that share partitions with a filter.

    :returns: the pause; that of an earlier call, if there is one of the same profile and filter
    Twice: safe.
    """
    prefixes = _text(sync_filter)
    with transaction.atomic():
        take_write_lock()
        made, _ = Pause.objects.get_or_create(profile=profile, filter=prefixes, defaults={"reason": reason})
    mark()
    made.refresh_from_db()
    return made


def resume(profile: str = "", sync_filter: Filter | None = None, *, pause_id: int | None = None) -> Resumed:
    """End pauses: all of them, all of a profile, that of a profile and filter, or that of an id.

    :raises UsageError: there is no such pause
    Twice, and at the same time: safe; the second one finds no pause.
    """
    chosen = Pause.objects.all()
    if profile:
        chosen = chosen.filter(profile=profile)
    if sync_filter is not None:
        chosen = chosen.filter(filter=_text(sync_filter))
    if pause_id is not None:
        chosen = chosen.filter(pk=pause_id)
    with transaction.atomic():
        take_write_lock()
        ended = list(chosen.order_by("pk").select_for_update())  # a worker that marks a run holds its pause
        if not ended:
            raise UsageError(f"Nothing to resume: there is no such pause. {in_words(in_force())}")
        Pause.objects.filter(pk__in=[each.pk for each in ended]).delete()
        left = in_force()
        marked = Run.objects.filter(state__in=Run.UNFINISHED, paused=True).only("profile", "filter")
        free = [run.pk for run in marked if holder(run, left) is None]
        for start in range(0, len(free), MARKED_AT_ONCE):
            page = Run.objects.filter(pk__in=free[start : start + MARKED_AT_ONCE])
            page.update(paused=False, sent_at=None, overdue_at=None)
    return Resumed(len(ended), free)


def mark(run_ids: Collection[int] | None = None) -> None:
    """Mark the unfinished runs that a pause holds, so that recovery sends nothing of them.

    A run in process is left alone, since nothing is sent for it. A run with a row that somebody
    holds is marked later, by the worker that gets a message for it.

    :param run_ids: only these runs; None for all
    Cost: one query if no pause is in force.
    """
    pauses = in_force()
    if not pauses:
        return
    runs = Run.objects.filter(state__in=Run.UNFINISHED, in_process=False, paused=False)
    if run_ids is not None:
        runs = runs.filter(pk__in=run_ids)
    held = [run.pk for run in runs.only("profile", "filter") if holder(run, pauses)]
    for start in range(0, len(held), MARKED_AT_ONCE):
        _mark(held[start : start + MARKED_AT_ONCE], pauses)


def hold(runs: QuerySet[Run]) -> bool | None:
    """Mark the run that a worker could not go on with, if a pause holds it.

    :param runs: a query for this run
    :returns: True if a pause holds it; False if only others are in force; None if there is no pause
    Cost: one query if no pause is in force.
    Twice, and at the same time: safe.
    """
    while pauses := in_force():
        run = runs.only("profile", "filter").first()
        holding = [] if run is None else [each for each in pauses if each.holds(run)]
        if run is None or not holding:
            return False
        if _mark([run.pk], holding):
            return True
    return None


def hold_batch(batch_id: int) -> bool | None:
    """Mark the run of a batch as `hold` does; the batch needs another message then."""
    is_held = hold(Run.objects.filter(batches=batch_id))
    if is_held:
        note_unsent(Batch.objects.filter(pk=batch_id, state=Batch.State.OPEN))
    return is_held


def require_not_paused(profile: str, sync_filter: Filter | None) -> None:
    """Raise an error if a pause holds a run that is to be carried out at once.

    :raises PausedError: says how to resume
    Cost: one query.
    """
    found = holder(Run(profile=profile, filter=_text(sync_filter) or None), in_force())
    if found is not None:
        raise PausedError(f"Nothing was done: {in_words([found])}")


def in_words(pauses: Sequence[Pause]) -> str:
    """Return a sentence such as "Paused: school (disk is full), since 2024-05-01 10:00:00 UTC; ..."."""
    if not pauses:
        return "Nothing is paused."
    return f"Paused: {'; '.join(map(_in_words, pauses))}. `manage.py resume_runs` ends it."


def _in_words(pause: Pause) -> str:
    reason = f" ({printable(pause.reason)})" if pause.reason else ""
    return f"{pause.scope}{reason}, since {pause.created_at:%Y-%m-%d %H:%M:%S} UTC"


def _text(sync_filter: Filter | None) -> str:
    return "" if sync_filter is None else "\n".join(outermost(sync_filter))


@transaction.atomic
def _mark(run_ids: Sequence[int], pauses: Sequence[Pause]) -> bool:
    """Mark runs, unless one of the pauses that may hold them has ended meanwhile.

    The pauses stay locked until the marks are committed, so that who ends them finds the marks.

    :returns: False if one has
    """
    take_write_lock()
    locked = Pause.objects.select_for_update(no_key=True).filter(pk__in=[each.pk for each in pauses])
    if len(locked) < len(pauses):
        return False
    runs = Run.objects.filter(pk__in=run_ids, state__in=Run.UNFINISHED)
    free = runs.select_for_update(skip_locked=True).values("pk")
    Run.objects.filter(pk__in=free).update(paused=True, sent_at=None, overdue_at=None)
    return True
