"""Two implementations that serve many syncs asked for at once: workers, and as many processes of Morango's.

The time of a sync is that from the moment at which all were asked for until it was completed.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from statistics import median

from morango.models.certificates import Filter

from bench.cases import WARM_UP_SYNCS
from bench.implementations import all_syncs, exact_records
from bench.measurement import Order
from bench.pool import pool_of, serve_sync
from bench.processes import peak_rss_mb
from bench.profiles import PROFILES
from bench.work import Work

LOOK_EVERY_SECONDS = 0.02


@dataclass(frozen=True)
class Served:
    """Times and counts of syncs that were asked for at once."""

    ended_after: list[float]
    """Seconds, of each sync."""
    ids: int = 0
    """Number of ids that all runs handed out together."""


Serve = Callable[[Sequence[Filter]], Served]


@contextmanager
def fleet(order: Order) -> Iterator[Work]:
    """Yield syncs served by a worker with prefork, as deployed."""
    from bench.workers import connect_to_empty_redis, peaks_mb, running_worker

    connect_to_empty_redis()
    with running_worker(order.workers) as pid:
        yield _work(order, partial(_serve_by_workers, PROFILES[order.models]), lambda: peaks_mb(pid))


@contextmanager
def morango_fleet(order: Order) -> Iterator[Work]:
    """Yield syncs served by processes that have begun; each has its connection and takes the next sync
    when one is done."""
    with pool_of(order.workers, order.models) as (pool, pids):
        serve = partial(_serve_by_processes, pool, PROFILES[order.models])
        yield _work(order, serve, lambda: [peak_rss_mb(pid) for pid in pids])


def _work(order: Order, serve: Serve, peaks_mb: Callable[[], list[float]]) -> Work:
    filters = all_syncs(order)
    serve(filters[:WARM_UP_SYNCS])
    served: list[Served] = []

    def carry_out(_: Filter | None) -> float:
        served.append(serve(filters[WARM_UP_SYNCS:]))
        return max(served[-1].ended_after)

    def figures() -> Mapping[str, float]:
        last = served[-1]
        records = exact_records(order) * len(last.ended_after)
        share = median(last.ended_after) / max(last.ended_after)
        return {"records": records, "median_share": share, "ids_per_record": last.ids / records}

    return Work(carry_out, peaks_mb, figures)


def _serve_by_workers(profile: str, filters: Sequence[Filter]) -> Served:
    from django.db import connection

    from morango_celery import deserialize
    from morango_celery.models import Run

    with connection.cursor() as cursor:
        cursor.execute("SELECT clock_timestamp()")  # the ledger's times are the server's
        (began,) = cursor.fetchone()
    asked = [deserialize(profile, sync_filter, in_process=False).pk for sync_filter in filters]
    runs = Run.objects.filter(pk__in=asked)
    while runs.filter(finished_at=None).exists():
        time.sleep(LOOK_EVERY_SECONDS)
    ended_after = []
    for run in runs:
        run.require_success()
        assert run.finished_at is not None, "it has ended"
        ended_after.append((run.finished_at - began).total_seconds())
    return Served(ended_after, sum(run.records for run in runs))


def _serve_by_processes(pool: ProcessPoolExecutor, profile: str, filters: Sequence[Filter]) -> Served:
    began = time.time()
    served = [pool.submit(serve_sync, profile, str(sync_filter)) for sync_filter in filters]
    return Served([future.result() - began for future in served])
