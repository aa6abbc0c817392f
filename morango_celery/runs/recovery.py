"""Finds what no worker finished in time, and sends it again."""

from __future__ import annotations

import datetime
from typing import Protocol

from django.db.models import Q
from django.utils import timezone

from morango_celery.conf import settings
from morango_celery.models import Batch, Run
from morango_celery.runs.handover import finish, hand_over

UNFINISHED = (Run.State.PENDING, Run.State.RUNNING)


class Dispatch(Protocol):
    """What sends messages. Each call returns False when the broker could not be reached."""

    def start(self, run: Run) -> bool:
        """Have a worker start, or go on with, the run."""

    def batch(self, batch: Batch) -> bool:
        """Have a worker execute the batch."""


def recover(dispatch: Dispatch, *, everything: bool = False) -> int:
    """Send again what was sent too long ago, or never.

    Safe at any moment, any number of times, on any number of machines: what is sent twice is done
    once.

    :param everything: whatever is unfinished, however short ago it was sent
    :returns: the number of messages sent
    """
    late = timezone.now() - datetime.timedelta(seconds=settings.RESEND_AFTER_SECONDS)
    stale = Q() if everything else Q(sent_at=None) | Q(sent_at__lt=late)
    sent = 0
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
    for batch in batches.select_related("run").iterator(chunk_size=20):
        sent += dispatch.batch(batch)
    return sent
