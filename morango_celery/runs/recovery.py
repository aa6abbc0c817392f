"""Finds what no worker finished in time, and sends it again."""

from __future__ import annotations

import contextlib
import datetime
from collections.abc import Collection
from typing import Any, Protocol

from django.db import OperationalError, transaction
from django.db.models import Q, QuerySet
from django.utils import timezone

from morango_celery.conf import settings
from morango_celery.deserialize.sql import take_write_lock
from morango_celery.models import Batch, Run
from morango_celery.reading.cursors import pages
from morango_celery.runs.handover import finish, hand_over
from morango_celery.runs.liveness import Life, life_of
from morango_celery.runs.producer import BATCHES_IN_MEMORY

UNFINISHED = (Run.State.PENDING, Run.State.RUNNING)

PATIENCE = 4
"""A run in process is taken for abandoned after this many times RESEND_AFTER_SECONDS without a sign of life:
its process may be merging local edits, which shows only when that is done."""


class Dispatch(Protocol):
    """What sends messages. Each call returns False when the broker could not be reached."""

    def start(self, run: Run) -> bool:
        """Have a worker start, or go on with, the run."""

    def batch(self, batch: Batch) -> bool:
        """Have a worker execute the batch."""


def recover(dispatch: Dispatch, *, everything: bool = False, run_ids: Collection[int] | None = None) -> int:
    """Send again what was sent too long ago, or never; end runs whose own process is gone.

    Safe at any moment, any number of times, on any number of machines: what is sent twice is done
    once. When the broker can't be reached it stops, and what is left waits for the next call.

    :param everything: whatever is unfinished, however short ago it was sent
    :param run_ids: of these runs only; None for all
    :returns: the number of messages sent
    """
    patience = datetime.timedelta(seconds=settings.RESEND_AFTER_SECONDS)
    late = timezone.now() - patience
    end_abandoned()
    chosen = Run.objects.all() if run_ids is None else Run.objects.filter(pk__in=run_ids)
    ended = chosen.exclude(state__in=UNFINISHED)
    for run in ended.filter(handed_over=False):
        hand_over(run)
    long_ended = ended if everything else ended.filter(finished_at__lt=late)
    for run in long_ended.filter(followed_up=False):
        finish(run)
    with transaction.atomic():
        Batch.forget_ids(Batch.objects.filter(run__in=ended))
    others = chosen.filter(state__in=UNFINISHED, in_process=False)
    waiting = others.filter(open_batches=0)
    batches = Batch.objects.filter(
        ~Batch.has_to_wait(), run__in=others.filter(state=Run.State.RUNNING), state=Batch.State.OPEN
    )
    if everything:
        _forget_messages(waiting)
        _forget_messages(batches)
    stale = Q() if everything else Q(sent_at=None) | Q(sent_at__lt=late)
    sent = 0
    for run in waiting.filter(stale):
        if not dispatch.start(run):
            return sent
        sent += 1
    for batch in pages(batches.filter(stale).select_related("run").defer("payload"), BATCHES_IN_MEMORY):
        if not dispatch.batch(batch):
            return sent
        sent += 1
    return sent


def _forget_messages(rows: QuerySet[Any]) -> None:
    """Note that none was sent, so that none is overlooked if the broker goes away before all are sent again.

    Rows that somebody is at work with are locked, and not waited for.
    """
    with transaction.atomic():
        free = rows.select_for_update(skip_locked=True).values("pk")
        rows.model.objects.filter(pk__in=free).update(sent_at=None)


def end_abandoned() -> None:
    """End runs in process whose process is gone; or, where that can't be known, has been silent for too long.

    Nobody else carries them out.

    Twice, and beside living ones: safe.
    """
    before = timezone.now() - PATIENCE * datetime.timedelta(seconds=settings.RESEND_AFTER_SECONDS)
    for run_id in Run.objects.filter(state__in=UNFINISHED, in_process=True).values_list("pk", flat=True):
        life = life_of(run_id)
        if life is Life.GOES_ON:
            continue
        with contextlib.suppress(OperationalError):  # SQLite's only writer, at work: perhaps on this run
            ended = _end_if_idle(run_id, None if life is Life.IS_OVER else before)
            if ended is not None:
                finish(ended)


@transaction.atomic
def _end_if_idle(run_id: int, before: datetime.datetime | None) -> Run | None:
    """:param before: if it has shown no sign of life since then; None if its process is known to be gone"""
    take_write_lock()
    runs = Run.objects.select_for_update(skip_locked=True).filter(pk=run_id, state__in=UNFINISHED)
    run = (runs if before is None else runs.filter(active_at__lt=before)).first()
    if run is None:
        return None
    batches = Batch.objects.filter(run=run, state=Batch.State.OPEN)
    idle = batches.select_for_update(skip_locked=True).values_list("pk", flat=True)
    if len(idle) < batches.count():  # who executes a batch holds its row
        return None
    heard = f"{run.active_at:%Y-%m-%d %H:%M:%S} UTC"
    gone = "is gone" if before is None else f"was not heard of since {heard} and is taken for dead"
    run.move_to(
        Run.State.FAILED,
        error=f"Its process {gone}. What it had not done is still dirty; the next run takes it, or "
        "`manage.py retry_run`.",
    )
    return run
