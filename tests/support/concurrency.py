"""Concurrent work beside a run: threads with connections of their own, and syncs as Morango dequeues them."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any

from django.db import OperationalError, connection
from morango.models import Buffer, RecordMaxCounterBuffer, Store
from morango.models.certificates import Filter
from morango.sync.operations import _dequeue_into_store

from morango_celery.serialization import serialize_into_store
from morango_celery.upstream import is_isolation_error
from tests.support.factories import SAVED_BY
from tests.support.processes import PATIENCE_SECONDS
from tests.support.transfers import new_transfer

COPIED = ("model_name", "partition", "source_id", "_self_ref_fk", "profile")


def together(calls: Sequence[Callable[[], Any]]) -> list[Any]:
    """Begin all calls together, in a thread each, and return their results, or raise an error of theirs."""
    ready = threading.Barrier(len(calls))

    def run(call: Callable[[], Any]) -> Any:
        try:
            ready.wait(PATIENCE_SECONDS)
            return call()
        finally:
            connection.close()

    with ThreadPoolExecutor(len(calls)) as pool:
        return list(pool.map(run, calls))


@contextmanager
def again_and_again(*works: Callable[[], Any], pause_seconds: float = 0) -> Iterator[list[int]]:
    """Do each of `works` over and over, in a thread of its own, until the block ends. Raise their errors
    here, and yield the number of times that each was done so far."""
    over = threading.Event()
    done = [0] * len(works)

    def repeat(number: int) -> None:
        try:
            while not over.wait(pause_seconds):
                works[number]()
                done[number] += 1
        finally:
            connection.close()

    with ThreadPoolExecutor(len(works)) as threads:
        running = [threads.submit(repeat, number) for number in range(len(works))]
        try:
            yield done
        finally:
            over.set()
        for thread in running:
            thread.result()


def as_morango_retries(work: Callable[[], Any]) -> None:
    """Repeat the work until the database doesn't ask to try again, as Morango's controller does."""
    while True:
        try:
            work()
            return
        except OperationalError as error:
            if not is_isolation_error(error):
                raise


def serialize(profile: str, sync_filter: str) -> None:
    as_morango_retries(lambda: serialize_into_store(profile, Filter(sync_filter)))


def sync(rows: Iterable[Store], counter: int, sync_filter: str) -> None:
    """Let newer versions of Store rows arrive, as a push does: through the buffers.

    :param counter: of the version, higher than any before
    """
    rows = list(rows)
    transfer = new_transfer(rows[0].profile, sync_filter)
    Buffer.objects.bulk_create(
        Buffer(
            transfer_session=transfer,
            model_uuid=row.id,
            serialized=row.serialized,
            deleted=row.deleted,
            hard_deleted=row.hard_deleted,
            last_saved_instance=SAVED_BY,
            last_saved_counter=counter,
            **{name: getattr(row, name) for name in COPIED},
        )
        for row in rows
    )
    RecordMaxCounterBuffer.objects.bulk_create(
        RecordMaxCounterBuffer(
            transfer_session=transfer, model_uuid=row.id, instance_id=SAVED_BY, counter=counter
        )
        for row in rows
    )
    as_morango_retries(lambda: _dequeue_into_store(transfer, "{}"))
