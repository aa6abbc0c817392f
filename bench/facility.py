"""A large run, with small ones of its facility asked for meanwhile, or without."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial

from morango.models.certificates import Filter

from bench.data import School, school_id
from bench.measurement import Order
from bench.profiles import PROFILES
from bench.store_rows import write
from bench.work import Work
from bench.workers import connect_to_empty_redis, enqueue_and_wait, peaks_mb, running_worker
from morango_celery import deserialize
from morango_celery.api import wait_for
from morango_celery.models import Run

SMALL_RUNS = 16
SMALL_RECORDS = 10
EVERY_SECONDS = 0.25
"""A device of the facility has pushed, and its run is asked for."""


@contextmanager
def large_alone(order: Order) -> Iterator[Work]:
    with _warm_worker(order) as pid:
        yield Work(partial(_carry_out, PROFILES[order.models], 0), lambda: peaks_mb(pid))


@contextmanager
def large_and_small(order: Order) -> Iterator[Work]:
    with _warm_worker(order) as pid:
        yield Work(partial(_carry_out, PROFILES[order.models], SMALL_RUNS), lambda: peaks_mb(pid))


@contextmanager
def _warm_worker(order: Order) -> Iterator[int]:
    connect_to_empty_redis()
    with running_worker(order.workers) as pid:
        for number in range(1, 1 + order.workers):
            enqueue_and_wait(PROFILES[order.models], Filter(school_id(number)))
        yield pid


def _carry_out(profile: str, small_runs: int, _: Filter | None) -> float:
    """Return how long the large run took from being asked for; all others have ended, too."""
    made = School(0)
    unit = made.unit(0, None)
    facility = Filter(made.id)
    large = deserialize(profile, facility, in_process=False)
    runs = [large]
    for number in range(small_runs):
        time.sleep(EVERY_SECONDS)
        first = (number + 1) * 10_000_000  # lessons that the school doesn't have yet
        write(made.lesson(lesson, unit.id) for lesson in range(first, first + SMALL_RECORDS))
        runs.append(deserialize(profile, facility, in_process=False))
    for run in runs:
        wait_for(run)
    large = Run.objects.get(pk=large.pk)
    assert large.finished_at is not None, "it was waited for"
    return (large.finished_at - large.created_at).total_seconds()
