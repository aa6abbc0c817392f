"""Finds what no worker finished in time, and sends it again."""

from __future__ import annotations

import contextlib
from collections.abc import Collection, Iterator
from typing import Any, Protocol

from django.db import OperationalError, connection, transaction
from django.db.models import Q, QuerySet

from morango_celery import clock
from morango_celery.conf import settings
from morango_celery.deserialization.sql import take_write_lock
from morango_celery.models import Batch, Run
from morango_celery.runs.completion import finish, notify_sessions
from morango_celery.runs.liveness import Life, life_of
from morango_celery.runs.overdue import free, nobody_opens, note_unsent, overdue
from morango_celery.runs.producer import BATCHES_IN_MEMORY
from morango_celery.runs.sharing import ready

PATIENCE = 4
"""A run in process is taken for abandoned after this many times STALLED_AFTER_SECONDS without a sign of life:
its process may be merging local edits, which shows only when that is done."""


class Dispatch(Protocol):
    """What sends messages. Each call returns False when the broker could not be reached."""

    def start(self, run: Run) -> bool:
        """Have a worker start, or go on with, the run."""

    def batch(self, batch: Batch) -> bool:
        """Have a worker execute the batch."""


def recover(
    dispatch: Dispatch, *, all_unfinished: bool = False, run_ids: Collection[int] | None = None
) -> int:
    """Send again what is overdue and in nobody's hands; end runs whose own process is gone.

    Safe at any moment, any number of times, on any number of machines: what is sent twice is done
    once. When the broker can't be reached nothing more is sent, and what is left waits for the next call. So
    does the end of a run that can't be followed up; nothing else waits for that.

    :param all_unfinished: whatever is unfinished and in nobody's hands, however short ago it was sent
    :param run_ids: of these runs only; None for all
    :returns: the number of messages sent
    :raises Exception: by which what follows the end of a run failed, the first of several
    Cost: a few statements, and one more for every message.
    """
    end_abandoned()
    chosen = Run.objects.all() if run_ids is None else Run.objects.filter(pk__in=run_ids)
    ended = chosen.exclude(state__in=Run.UNFINISHED)
    notify_sessions(ended)
    with transaction.atomic():
        Batch.forget_ids(Batch.objects.filter(run__in=ended))
    others = chosen.filter(state__in=Run.UNFINISHED, in_process=False)
    waiting = others.filter(ready(), open_batches=0)
    batches = Batch.objects.filter(
        ~Batch.has_to_wait(), run__in=others.filter(state=Run.State.RUNNING), state=Batch.State.OPEN
    )
    if all_unfinished:  # and let none be overlooked if the broker goes away before all are sent
        note_unsent(waiting)
        note_unsent(batches)
    due = Q() if all_unfinished else overdue()
    sent = _send(
        dispatch,
        waiting.filter(due, nobody_opens()),
        batches.filter(due).select_related("run").defer("ids_json"),
    )
    long_ended = Q() if all_unfinished else Q(finished_at__lt=clock.now(-settings.STALLED_AFTER_SECONDS))
    _finish_all(ended.filter(long_ended, nobody_opens(), finalized=False))
    return sent


def _send(dispatch: Dispatch, waiting: QuerySet[Any], batches: QuerySet[Any]) -> int:
    """Send messages until the broker can't be reached. Returns how many."""
    sent = 0
    for run in _free_pages(waiting):
        if not dispatch.start(run):
            return sent
        sent += 1
    for batch in _free_pages(batches):
        if not dispatch.batch(batch):
            return sent
        sent += 1
    return sent


def _finish_all(ended: QuerySet[Any]) -> None:
    """Follow up the ends of runs, whatever becomes of single ones. Raises the first error at the end."""
    errors: list[Exception] = []
    for run in _free_pages(ended):
        try:
            finish(run)
        except Exception as error:  # of the database, or a receiver: no reason to let others wait
            errors.append(error)
            if not connection.in_atomic_block:
                connection.close_if_unusable_or_obsolete()
    if errors:
        raise errors[0]


def _free_pages(rows: QuerySet[Any]) -> Iterator[Any]:
    """All of the rows by their primary key that nobody holds when their page is read."""
    last = 0
    while True:
        with transaction.atomic():
            page = list(free(rows.filter(pk__gt=last).order_by("pk"))[:BATCHES_IN_MEMORY])
        if not page:
            return
        yield from page
        last = page[-1].pk


def end_abandoned() -> None:
    """End runs in process whose process is gone; or, where that can't be known, has been silent for too long.

    Nobody else carries them out.

    Twice, and beside living ones: safe.
    """
    for run_id in Run.objects.filter(state__in=Run.UNFINISHED, in_process=True).values_list("pk", flat=True):
        life = life_of(run_id)
        if life is Life.GOES_ON:
            continue
        with contextlib.suppress(OperationalError):  # SQLite's only writer, at work: perhaps on this run
            ended = _end_if_idle(run_id, is_gone=life is Life.IS_OVER)
            if ended is not None:
                finish(ended)


@transaction.atomic
def _end_if_idle(run_id: int, *, is_gone: bool) -> Run | None:
    """:param is_gone: its process is known to be so; if not, only long silence tells"""
    take_write_lock()
    unfinished = Run.objects.filter(pk=run_id, state__in=Run.UNFINISHED)
    silent = unfinished.filter(last_activity_at__lt=clock.now(-PATIENCE * settings.STALLED_AFTER_SECONDS))
    run: Run | None = free((unfinished if is_gone else silent).filter(nobody_opens())).first()
    if run is None:
        return None
    batches = Batch.objects.filter(run=run, state=Batch.State.OPEN)
    idle = batches.select_for_update(skip_locked=True).values_list("pk", flat=True)
    if len(idle) < batches.count():  # who executes a batch holds its row
        return None
    heard = f"{run.last_activity_at:%Y-%m-%d %H:%M:%S} UTC"
    gone = "is gone" if is_gone else f"was not heard of since {heard} and is taken for dead"
    run.move_to(
        Run.State.FAILED,
        error=f"Its process {gone}. What it had not done is still dirty; the next run takes it, or "
        "`manage.py retry_run`.",
    )
    return run
