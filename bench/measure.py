"""One measurement in this, fresh, process: ``python -m bench.measure`` and an `Order` as JSON.

Prints the `Measurement` as JSON. The database comes from the environment, and is used up.
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict
from statistics import median
from typing import Any

import django

from bench.measurement import Measurement, Order


class Counter:
    """Counts the statements of a connection that it wraps."""

    def __init__(self) -> None:
        self.statements = 0

    def __call__(self, execute: Callable[..., Any], *arguments: Any) -> Any:
        self.statements += 1
        return execute(*arguments)


def measure(order: Order) -> Measurement:
    from django.db import connection
    from morango.models.core import Store

    from bench.processes import peak_rss_mb
    from bench.sides import SIDES, syncs
    from morango_celery.models import Batch

    filters, warm_up = syncs(order.case)
    with SIDES[order.side](order) as work:
        connection.ensure_connection()
        if order.pinned:
            _pin()
        with _counting(order.count_statements) as counter:
            seconds = [work(sync_filter) for sync_filter in filters]
        peaks = work.peaks_mb()
    return Measurement(
        seconds=median(seconds[warm_up:]),
        records=order.records,
        peak_rss_mb=max(peaks.get("worker") or [peak_rss_mb()]),
        left_dirty=Store.objects.filter(dirty_bit=True).count(),
        statements=counter.statements if order.count_statements else None,
        batches=Batch.objects.count() or None,
        peaks_mb=peaks,
    )


def _pin() -> None:
    """Keep this process and its PostgreSQL backend on one core: round trips between cores are slow."""
    from django.db import connection

    core = {max(os.sched_getaffinity(0))}
    with connection.cursor() as cursor:
        cursor.execute("SELECT pg_backend_pid()")
        (backend,) = cursor.fetchone()
    os.sched_setaffinity(backend, core)
    os.sched_setaffinity(0, core)


@contextmanager
def _counting(wanted: bool) -> Iterator[Counter]:
    from django.db import connection

    counter = Counter()
    if not wanted:
        yield counter
        return
    with connection.execute_wrapper(counter):
        yield counter


if __name__ == "__main__":
    django.setup()
    sys.stdout.write(json.dumps(asdict(measure(Order(**json.loads(sys.argv[1]))))))
