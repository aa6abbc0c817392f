"""Finds what no worker finished in time, and sends it again."""

from __future__ import annotations

import contextlib
import datetime
from typing import Protocol

from django.db import OperationalError, transaction
from django.db.models import Q
from django.utils import timezone

from morango_celery.conf import settings
from morango_celery.deserialize.sql import take_write_lock
from morango_celery.models import Batch, Run
from morango_celery.reading.cursors import pages
from morango_celery.runs.handover import finish, hand_over
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


def recover(dispatch: Dispatch, *, everything: bool = False) -> int:
    """Send again what was sent too long ago, or never; end runs whose own process is gone.

    Safe at any moment, any number of times, on any number of machines: what is sent twice is done
    once.

    :param everything: whatever is unfinished, however short ago it was sent
    :returns: the number of messages sent
    """
    patience = datetime.timedelta(seconds=settings.RESEND_AFTER_SECONDS)
    late = timezone.now() - patience
    stale = Q() if everything else Q(sent_at=None) | Q(sent_at__lt=late)
    sent = 0
    _end_abandoned(before=timezone.now() - PATIENCE * patience)
    ended = Run.objects.exclude(state__in=UNFINISHED)
    for run in ended.filter(handed_over=False):
        hand_over(run)
    long_ended = ended if everything else ended.filter(finished_at__lt=late)
    for run in long_ended.filter(followed_up=False):
        finish(run)
    for run in Run.objects.filter(stale, state__in=UNFINISHED, open_batches=0, in_process=False):
        sent += dispatch.start(run)
    batches = Batch.objects.filter(
        stale, state=Batch.State.OPEN, run__state=Run.State.RUNNING, run__in_process=False
    )
    for batch in pages(batches.select_related("run").defer("payload"), BATCHES_IN_MEMORY):
        sent += dispatch.batch(batch)
    return sent


def _end_abandoned(before: datetime.datetime) -> None:
    """End runs in process that have shown no sign of life since then: nobody else carries them out."""
    silent = Run.objects.filter(state__in=UNFINISHED, in_process=True, active_at__lt=before)
    for run_id in silent.values_list("pk", flat=True):
        with contextlib.suppress(OperationalError):  # SQLite's only writer, at work: perhaps on this run
            ended = _end_if_idle(run_id, before)
            if ended is not None:
                finish(ended)


@transaction.atomic
def _end_if_idle(run_id: int, before: datetime.datetime) -> Run | None:
    take_write_lock()
    runs = Run.objects.select_for_update(skip_locked=True)
    run = runs.filter(pk=run_id, state__in=UNFINISHED, active_at__lt=before).first()
    if run is None:
        return None
    batches = Batch.objects.filter(run=run, state=Batch.State.OPEN)
    idle = batches.select_for_update(skip_locked=True).values_list("pk", flat=True)
    if len(idle) < batches.count():  # who executes a batch holds its row
        return None
    heard = f"{run.active_at:%Y-%m-%d %H:%M:%S} UTC"
    run.move_to(
        Run.State.FAILED,
        error=f"Its process was not heard of since {heard} and is taken for dead. What it had not done "
        "is still dirty; the next run takes it, or `manage.py retry_run`.",
    )
    return run
