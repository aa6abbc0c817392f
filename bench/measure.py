"""One measurement in this, fresh, process: ``python -m bench.measure`` and an `Order` as JSON.

Prints the `Measurement` as JSON. The database comes from the environment, and is used up.
"""

from __future__ import annotations

import json
import os
import sys
from dataclasses import asdict
from pathlib import Path
from statistics import median
from typing import Any

import django

from bench.counting import counted
from bench.measurement import Measurement, Order
from bench.processes import peak_rss_mb, stop_in_order
from bench.profiles import OVER_HTTP


def main(order: Order) -> Measurement:
    if order.models == OVER_HTTP:
        from bench import over_http

        return over_http.measure(order)
    django.setup()
    return measure(order)


def measure(order: Order) -> Measurement:
    from django.db import connection

    from bench.implementations import IMPLEMENTATIONS, exact_records, syncs
    from morango_celery.models import Batch

    filters, warm_up = syncs(order)
    earlier_batches = Batch.objects.count()
    seconds, statements, commits = [], [], []
    with IMPLEMENTATIONS[order.implementation](order) as work:
        connection.ensure_connection()
        if order.pinned:
            _pin()
        with counted() as counter:
            for sync_filter in filters:
                before = counter.statements, counter.commits
                seconds.append(work.carry_out(sync_filter))
                statements.append(counter.statements - before[0])
                commits.append(counter.commits - before[1])
        peak_mb, others_mb = peak_rss_mb(), work.peaks_mb()
        figures = work.figures()
    found: dict[str, Any] = {
        "seconds": median(seconds[warm_up:]),
        "records": exact_records(order),
        "peak_rss_mb": max(others_mb or [peak_mb]),
        "left_dirty": _left_dirty(order.models),
        "statements": median(statements[warm_up:]),
        "commits": median(commits[warm_up:]),
        "batches": (Batch.objects.count() - earlier_batches) / len(filters),
    }
    return Measurement(**{**found, **figures})


def _left_dirty(models: str) -> int:
    """Store rows that were not deserialized, and app rows that were not serialized."""
    from morango.models.core import Store

    from bench.profiles import PROFILES
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
    sys.stdout.write(json.dumps(asdict(main(Order(**json.loads(sys.argv[1]))))))
