"""The producer alone: it plans and sends all that keeps workers busy, and no worker takes it."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager

from morango.models.certificates import Filter
from morango.models.core import Store

from bench.measurement import Order
from bench.work import Work
from bench.workers import connect_to_empty_redis
from morango_celery.models import Batch, Run
from morango_celery.runs.producer import create_run
from morango_celery.tasks import start_run
from worker.school.models import PROFILE, Unit


@contextmanager
def producer(order: Order) -> Iterator[Work]:
    """Yield the planning and sending of all batches in this process; nobody executes them."""
    connect_to_empty_redis()
    yield Work(produce)


def produce(sync_filter: Filter | None) -> float:
    run = create_run(PROFILE, sync_filter, serialize_first=True, session_notified=True)
    seconds = 0.0
    while not run.has_ended:
        began = time.perf_counter()
        start_run(run.pk)
        seconds += time.perf_counter() - began
        _pretend_to_execute(run)
        run.refresh_from_db()
    return seconds


def _pretend_to_execute(run: Run) -> None:
    """Close the open batches. Of a tree, the next generation is planned only when this one is clean."""
    batches = Batch.objects.filter(run=run, state=Batch.State.OPEN)
    for batch in batches.iterator(chunk_size=20):
        units = Store.objects.filter(pk__in=batch.store_ids, model_name=Unit.morango_model_name)
        if not units.update(dirty_bit=False):
            break  # the models of a later step, whose records don't wait for each other
    batches.update(state=Batch.State.DONE)
    Run.objects.filter(pk=run.pk).update(open_batches=0)
