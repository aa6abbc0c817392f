"""Implementations with Redis and Celery: real workers, whichever host is measured."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from django.conf import settings
from morango.models.certificates import Filter
from redis import Redis

import worker
from bench.measurement import Order
from bench.processes import peak_rss_mb
from bench.profiles import PROFILES
from bench.work import Work
from morango_celery.api import deserialize
from tests.support.processes import LoggedProcess
from worker.demo.memory import peak_memory_bytes

QUEUE = "celery"

SHORTEST_PAUSE_SECONDS = 0.002
MAX_PAUSE_SECONDS = 0.05
SHARE_OF_PAUSE = 0.02
"""Pause between two looks at the ledger, as a share of the time so far: looking takes time from the workers,
and half a pause is added to the result."""


@contextmanager
def celery(order: Order) -> Iterator[Work]:
    """Yield a worker with prefork, as deployed: from ``deserialize()`` until the run has ended."""
    connect_to_empty_redis()
    with running_worker(order.workers) as pid:
        yield Work(partial(enqueue_and_wait, PROFILES[order.models]), lambda: peaks_mb(pid))


@contextmanager
def tasks(order: Order) -> Iterator[Work]:
    """Yield the work of the workers' processes in this one: from ``deserialize()`` until no message is
    left."""
    connect_to_empty_redis()
    with worker.celery_app.connection_for_read() as connection:
        yield Work(partial(_enqueue_and_execute, connection.default_channel, PROFILES[order.models]))


def _enqueue_and_execute(channel: Any, profile: str, sync_filter: Filter | None) -> float:
    began = time.perf_counter()
    deserialize(profile, sync_filter, in_process=False)
    while (message := channel.basic_get(QUEUE, no_ack=True)) is not None:
        arguments, _, _ = message.payload
        worker.celery_app.tasks[message.headers["task"]](*arguments)
    return time.perf_counter() - began


@contextmanager
def running_worker(concurrency: int) -> Iterator[int]:
    """Yield the process id of a worker that is ready."""
    arguments = ["morango_celery.worker", "-A", worker.__name__, "--loglevel=INFO"]
    arguments += [f"--concurrency={concurrency}", "--without-gossip", "--without-mingle"]
    with TemporaryDirectory(prefix="bench-worker-") as folder:
        process = LoggedProcess(arguments, Path(folder) / "worker.log", {})
        try:
            process.wait_for_log(" ready.")
            yield process.pid
        finally:
            process.kill()


def enqueue_and_wait(profile: str, sync_filter: Filter | None) -> float:
    began = time.perf_counter()
    run = deserialize(profile, sync_filter, in_process=False)
    while not run.has_ended:
        pause = SHARE_OF_PAUSE * (time.perf_counter() - began)
        time.sleep(min(max(pause, SHORTEST_PAUSE_SECONDS), MAX_PAUSE_SECONDS))
        run.refresh_from_db()
    seconds = time.perf_counter() - began
    run.require_success()
    return seconds


def peaks_mb(pid: int) -> list[float]:
    """Return the peak of the worker's first process, and of the largest of those that execute batches."""
    largest_bytes = peak_memory_bytes(pid)
    assert largest_bytes is not None, "the worker has no child"
    return [peak_rss_mb(pid), largest_bytes / 2**20]


def connect_to_empty_redis() -> None:
    with Redis.from_url(settings.REDIS_URL) as client:
        client.flushdb()
    with worker.celery_app.connection_for_write() as connection:
        connection.ensure_connection(max_retries=3)
