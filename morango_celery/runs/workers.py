"""Signs of life of workers, as the ledger has them.

Each worker asks for recovery once a minute, by default, and some worker carries it out and is noted. A worker
with long batches has no process for that: a batch that was begun, or done, counts as well.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from django.db.models import Count, Max, Q, QuerySet

from morango_celery import clock
from morango_celery.conf import settings
from morango_celery.models import Run, Worker
from morango_celery.runs.status import with_attempts
from morango_celery.version import __version__

LOST_SHARE = 1 / 3
"""Share of STALLED_AFTER_SECONDS after which, without a sign of life, no worker is assumed to be left: five
times the interval at which each worker asks for recovery."""

FORGOTTEN_SECONDS = 7 * 24 * 60 * 60
"""Time after which a worker that gave no sign is forgotten: names of containers come and go."""

MAX_NAME_CHARACTERS = 255


@dataclass(frozen=True)
class SignsOfWorkers:
    """Signs of life of all workers together."""

    number: int
    """Number of workers that have taken a message within STALLED_AFTER_SECONDS."""
    idle_seconds: float | None
    """Time since the last sign of any of them; None if none was ever seen."""

    def are_lost(self, after_seconds: float | None = None) -> bool:
        """Return True if no worker gave a sign of life for so long, or ever.

        :param after_seconds: None for a third of STALLED_AFTER_SECONDS
        """
        limit_seconds = lost_after_seconds() if after_seconds is None else after_seconds
        return self.idle_seconds is None or self.idle_seconds > limit_seconds


def lost_after_seconds() -> float:
    """Return the time without a sign of life after which there is taken to be no worker."""
    return float(settings.STALLED_AFTER_SECONDS) * LOST_SHARE


def note_worker(name: str) -> None:
    """Note that a worker lives.

    :param name: its node name
    Cost: one statement; three for a worker that wasn't known.
    Twice, and at the same time: safe.
    """
    name = name[:MAX_NAME_CHARACTERS]
    if not Worker.objects.filter(name=name).update(seen_at=clock.now(), version=__version__):
        Worker.objects.filter(seen_at__lt=clock.now(-FORGOTTEN_SECONDS)).delete()
        Worker.objects.bulk_create([Worker(name=name, version=__version__)], ignore_conflicts=True)


def live_workers() -> QuerySet[Any]:
    """Return the workers that have taken a message within STALLED_AFTER_SECONDS, each with the time `now`.

    A worker among many others may not be one of them yet, since any worker may take the message.
    """
    seen = Worker.objects.filter(seen_at__gte=clock.now(-settings.STALLED_AFTER_SECONDS))
    return seen.annotate(now=clock.now()).order_by("name")


def signs_of_workers() -> SignsOfWorkers:
    """Return the signs of life of all workers.

    Cost: two queries.
    """
    recent = Q(seen_at__gte=clock.now(-settings.STALLED_AFTER_SECONDS))
    workers = Worker.objects.aggregate(
        number=Count("pk", filter=recent), seen=Max("seen_at"), now=Max(clock.now())
    )
    running = with_attempts(Run.objects.filter(state=Run.State.RUNNING, in_process=False))
    runs = running.aggregate(begun=Max("attempted_at"), done=Max("last_activity_at"), at=Max(clock.now()))
    signs = [sign for sign in (workers["seen"], runs["begun"], runs["done"]) if sign is not None]
    if not signs:
        return SignsOfWorkers(workers["number"], None)
    now = workers["now"] or runs["at"]
    return SignsOfWorkers(workers["number"], max((now - max(signs)).total_seconds(), 0.0))
