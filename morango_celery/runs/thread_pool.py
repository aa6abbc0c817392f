"""Batches side by side in one process, in threads with a database connection each.

Most of a batch's time is PostgreSQL's: while it works for one thread, Python works for another.
"""

from __future__ import annotations

from collections.abc import Generator, Iterable, Iterator
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from threading import Barrier

from django.db import OperationalError, connection, connections

from morango_celery.db.errors import is_lock_timeout
from morango_celery.runs.execution import Execution, execute_batch
from morango_celery.upstream import is_isolation_error

ATTEMPTS = 5


def executed(batch_ids: Iterable[int], concurrency: int) -> Generator[Execution, None, None]:
    """Execute batches, and yield each execution as it ends.

    With a concurrency above 1, the batches that an execution has to send are executed as well. When the
    caller stops the iteration, or gets an error, no batch is in execution afterwards.

    :param concurrency: number of batches at the same time; above 1, not inside a transaction
    :raises Exception: the error that stopped a batch; the others that were begun are completed
    """
    if concurrency == 1:
        yield from map(execute, batch_ids)
        return
    with ThreadPoolExecutor(concurrency, thread_name_prefix="batches") as threads:
        begun: set[Future[Execution]] = set()
        known: set[int] = set()

        def begin(ids: Iterable[int]) -> None:
            """Begin each batch once: one that an execution has to send may be among `batch_ids` as well."""
            for batch_id in ids:
                if batch_id not in known:
                    known.add(batch_id)
                    begun.add(threads.submit(execute, batch_id))

        def ended() -> Iterator[Execution]:
            for future in wait(begun, return_when=FIRST_COMPLETED).done:
                begun.discard(future)
                execution = future.result()
                begin(execution.batches_to_send)
                yield execution

        try:
            for batch_id in batch_ids:
                begin([batch_id])
                if len(begun) > concurrency:  # one more than threads, so that none waits for this one
                    yield from ended()
            while begun:
                yield from ended()
        finally:
            for future in begun:
                future.cancel()
            _close_connections(threads, concurrency)


def execute(batch_id: int) -> Execution:
    """Execute a batch; retry it if the database asks for that, or has waited for a lock long enough."""
    for left in reversed(range(ATTEMPTS)):
        try:
            return execute_batch(batch_id, ends_run=True)
        except OperationalError as error:
            if not left or connection.in_atomic_block:
                raise
            if not is_isolation_error(error) and not is_lock_timeout(error):
                raise
    raise AssertionError("the last attempt returns or raises")


def _close_connections(threads: ThreadPoolExecutor, concurrency: int) -> None:
    everybody = Barrier(concurrency)  # each thread gets exactly one of these calls

    def close() -> None:
        everybody.wait()
        connections.close_all()

    wait([threads.submit(close) for _ in range(concurrency)])
