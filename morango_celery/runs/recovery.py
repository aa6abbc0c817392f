"""Recovery: messages are sent again for work that no worker finished in time."""

from __future__ import annotations

import contextlib
from collections.abc import Collection, Iterator
from typing import Any, Protocol

from django.db import OperationalError, connection, transaction
from django.db.models import Q, QuerySet

from morango_celery import clock
from morango_celery.conf import settings
from morango_celery.deserialization.locks import take_write_lock
from morango_celery.models import Batch, Run
from morango_celery.runs.batching import BATCHES_IN_MEMORY
from morango_celery.runs.completion import finalize, notify_sessions
from morango_celery.runs.liveness import Life, life_of
from morango_celery.runs.overdue import lock_free, note_unsent, overdue, takes_opening_lock
from morango_celery.runs.pausing import mark
from morango_celery.runs.sharing import ready

IN_PROCESS_STALLED_FACTOR = 4
"""Factor of STALLED_AFTER_SECONDS after which a run in process without a sign of life counts as abandoned.
Its process may be merging local edits, and shows no sign until that is done."""


class Dispatch(Protocol):
    """A sender of messages. Each call returns False when the broker could not be reached."""

    def start(self, run: Run) -> bool:
        """Send a message by which a worker starts, or goes on with, the run."""

    def batch(self, batch: Batch) -> bool:
        """Send a message by which a worker executes the batch."""


def recover(
    dispatch: Dispatch, *, all_unfinished: bool = False, run_ids: Collection[int] | None = None
) -> int:
    """Send messages again for overdue work that nobody holds; end runs in process that lost their process.

    Nothing is sent for a run that a pause holds. What a newer version has written is left to its workers.

    When the broker can't be reached, nothing more is sent, and the rest waits for the next call. So does
    the end of a run that can't be finalized; nothing else waits for that.

    :param all_unfinished: True for all unfinished work that nobody holds, even if it was sent just now
    :param run_ids: only these runs; None for all
    :returns: the number of messages sent
    :raises Exception: the first error by which a run could not be finalized
    Cost: a few statements, and one more for every message.
    Twice, and on any number of machines at the same time: safe; work that is sent twice is done once.
    """
    end_abandoned()
    mark(run_ids)
    chosen = Run.objects.all() if run_ids is None else Run.objects.filter(pk__in=run_ids)
    ended = chosen.filter(state__in=Run.ENDED)
    notify_sessions(ended)
    with transaction.atomic():
        Batch.objects.filter(run__in=ended).forget_ids()
    waiting, batches = _unfinished(chosen)
    if all_unfinished:  # noted first, so that none is overlooked if the broker goes away before all are sent
        note_unsent(waiting)
        note_unsent(batches)
    due = Q() if all_unfinished else overdue()
    sent = _send(
        dispatch,
        waiting.filter(due, takes_opening_lock()),
        batches.filter(due).select_related("run").defer("ids_json"),
    )
    long_ended = Q() if all_unfinished else Q(finished_at__lt=clock.now(-settings.STALLED_AFTER_SECONDS))
    _finalize_all(ended.filter(Run.known(), long_ended, takes_opening_lock(), finalized=False))
    return sent


def count_overdue() -> int:
    """Return the number of overdue messages, those for held work included.

    Cost: two queries.
    """
    waiting, batches = _unfinished(Run.objects.all())
    return waiting.filter(overdue()).count() + batches.filter(overdue()).count()


def _unfinished(chosen: QuerySet[Any]) -> tuple[QuerySet[Any], QuerySet[Any]]:
    """Return the unfinished runs and the open batches that need a message."""
    others = chosen.filter(Run.known(), state__in=Run.UNFINISHED, in_process=False, paused=False)
    batches = Batch.objects.filter(
        Batch.known(),
        Batch.may_begin(),
        run__in=others.filter(state=Run.State.RUNNING),
        state=Batch.State.OPEN,
    )
    return others.filter(ready(), open_batches=0), batches


def _send(dispatch: Dispatch, waiting: QuerySet[Any], batches: QuerySet[Any]) -> int:
    """Send messages until the broker can't be reached, and return their number."""
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


def _finalize_all(ended: QuerySet[Any]) -> None:
    """Finalize all of these runs, and raise the first error afterwards."""
    errors: list[Exception] = []
    for run in _free_pages(ended):
        try:
            finalize(run)
        except Exception as error:  # the database's or a receiver's; others must not wait for this run
            errors.append(error)
            if not connection.in_atomic_block:
                connection.close_if_unusable_or_obsolete()
    if errors:
        raise errors[0]


def _free_pages(rows: QuerySet[Any]) -> Iterator[Any]:
    """Yield the rows, by primary key, that nobody holds when their page is read."""
    last = 0
    while True:
        with transaction.atomic():
            page = list(lock_free(rows.filter(pk__gt=last).order_by("pk"))[:BATCHES_IN_MEMORY])
        if not page:
            return
        yield from page
        last = page[-1].pk


def end_abandoned() -> None:
    """End runs in process that lost their process or, where nobody knows, showed no sign of life for long.

    Nobody else carries them out.

    Twice, and beside living runs: safe.
    """
    in_process = Run.objects.filter(Run.known(), state__in=Run.UNFINISHED, in_process=True)
    for run_id in in_process.values_list("pk", flat=True):
        life = life_of(run_id)
        if life is Life.GOES_ON:
            continue
        with contextlib.suppress(OperationalError):  # SQLite's one writer is at work, perhaps for this run
            ended = _end_if_idle(run_id, is_gone=life is Life.IS_OVER)
            if ended is not None:
                finalize(ended)


@transaction.atomic
def _end_if_idle(run_id: int, *, is_gone: bool) -> Run | None:
    """End a run in process, and return it, unless its process shows signs of life.

    :param is_gone: True if its process is known to be gone; otherwise only the time of the last sign tells
    """
    take_write_lock()
    unfinished = Run.objects.filter(pk=run_id, state__in=Run.UNFINISHED)
    idle = unfinished.filter(
        last_activity_at__lt=clock.now(-IN_PROCESS_STALLED_FACTOR * settings.STALLED_AFTER_SECONDS)
    )
    run: Run | None = lock_free((unfinished if is_gone else idle).filter(takes_opening_lock())).first()
    if run is None:
        return None
    batches = Batch.objects.filter(run=run, state=Batch.State.OPEN)
    unheld = batches.select_for_update(skip_locked=True).values_list("pk", flat=True)
    if len(unheld) < batches.count():  # a process that executes a batch holds its row
        return None
    heard = f"{run.last_activity_at:%Y-%m-%d %H:%M:%S} UTC"
    gone = "is gone" if is_gone else f"was not heard of since {heard} and is taken for dead"
    run.move_to(
        Run.State.FAILED,
        error=f"Its process {gone}. What it had not done is still dirty; the next run takes it, or "
        "`manage.py retry_run`.",
    )
    return run
