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
from pathlib import Path
from statistics import median
from typing import Any

import django

from bench.measurement import Measurement, Order
from bench.processes import peak_rss_mb, stop_in_order


class Counter:
    """Counts the statements of a connection that it wraps."""

    def __init__(self) -> None:
        self.statements = 0

    def __call__(self, execute: Callable[..., Any], *arguments: Any) -> Any:
        self.statements += 1
        return execute(*arguments)


def measure(order: Order) -> Measurement:
    from django.db import connection

    from bench.sides import SIDES, exact_records, syncs
    from morango_celery.models import Batch

    filters, warm_up = syncs(order.case)
    earlier_batches = Batch.objects.count()
    counter = Counter()
    with SIDES[order.side](order) as work:
        connection.ensure_connection()
        if order.pinned:
            _pin()
        with connection.execute_wrapper(counter), _further_connections(counter):
            seconds = [work.carry_out(sync_filter) for sync_filter in filters]
        peak_mb, others_mb = peak_rss_mb(), work.peaks_mb()
        figures = work.figures()
    return Measurement(
        seconds=median(seconds[warm_up:]),
        records=exact_records(order),
        peak_rss_mb=max(others_mb or [peak_mb]),
        left_dirty=_left_dirty(order.models),
        statements=counter.statements / len(filters),
        batches=(Batch.objects.count() - earlier_batches) / len(filters),
        **figures,
    )


@contextmanager
def _further_connections(counter: Counter) -> Iterator[None]:
    """Count the statements of connections that are opened in the block, too: a run in process has several."""
    from django.db.backends.signals import connection_created

    def count(connection: Any, **_: Any) -> None:
        connection.execute_wrappers.append(counter)

    connection_created.connect(count)
    try:
        yield
    finally:
        connection_created.disconnect(count)


def _left_dirty(models: str) -> int:
    """Store rows that were not deserialized, and app rows that were not serialized."""
    from morango.models.core import Store

    from bench.sides import PROFILES
    from morango_celery.upstream import registered_models

    querysets = [
        model.syncing_objects.filter(_morango_dirty_bit=True) for model in registered_models(PROFILES[models])
    ]
    return sum(rows.count() for rows in [Store.objects.filter(dirty_bit=True), *querysets])


def _pin() -> None:
    """Keep this process and its PostgreSQL backend on one core: round trips between cores are slow.

    :raises OSError: the server isn't on this machine, or is another user's
    """
    from django.db import connection

    core = {max(os.sched_getaffinity(0))}
    with connection.cursor() as cursor:
        cursor.execute("SELECT pg_backend_pid()")
        (backend,) = cursor.fetchone()
    if not Path(f"/proc/{backend}/comm").read_text().startswith("postgres"):
        raise OSError("The server's processes are not this machine's.")
    os.sched_setaffinity(backend, core)
    os.sched_setaffinity(0, core)


if __name__ == "__main__":
    stop_in_order()
    django.setup()
    sys.stdout.write(json.dumps(asdict(measure(Order(**json.loads(sys.argv[1]))))))
