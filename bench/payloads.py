"""Data that is too large for a message: the batches' ids, and values in our store and in pynenc's."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory
from typing import Any, Protocol

from django.conf import settings
from redis import Redis

from bench.measurement import Order
from bench.values import SIZES
from bench.work import Work, timed

RECORDS_PER_BATCH = 2_000
BATCHES_PER_INSERT = 20


@contextmanager
def messages(order: Order) -> Iterator[Work]:
    """Yield the batches of a stage, sent as workers send them, with the hash of their ids; nobody takes
    them."""
    from morango_celery.messaging.dispatch import CeleryDispatch
    from morango_celery.runs.batching import BATCHES_IN_MEMORY, open_batches
    from morango_celery.stream import chunked

    run = _run_with_batches(order.records)
    dispatch = CeleryDispatch()

    def send() -> None:
        for page in chunked(open_batches(run), BATCHES_IN_MEMORY):
            assert dispatch.batches(page) == len(page)

    with _in_empty_redis(send) as work:
        yield work


@contextmanager
def messages_inline(order: Order) -> Iterator[Work]:
    """Yield the same with the ids in the messages."""
    from django.utils import timezone

    import worker
    from morango_celery.messaging.dispatch import SEND_RETRIES
    from morango_celery.messaging.priorities import priority
    from morango_celery.models import Batch
    from morango_celery.tasks import deserialize_batch

    run = _run_with_batches(order.records)

    def send() -> None:
        batches = Batch.objects.filter(run=run, state=Batch.State.OPEN).select_related("run")
        for batch in batches.order_by("pk").iterator(BATCHES_PER_INSERT):
            worker.celery_app.send_task(
                deserialize_batch.name,
                [batch.pk, batch.store_ids],
                argsrepr=batch.description,
                retry=True,
                retry_policy=SEND_RETRIES,
                priority=priority(batch.run),
            )
            Batch.objects.filter(pk=batch.pk).update(sent_at=timezone.now())

    with _in_empty_redis(send) as work:
        yield work


@contextmanager
def _in_empty_redis(send: Callable[[], None]) -> Iterator[Work]:
    from bench.workers import connect_to_empty_redis

    connect_to_empty_redis()

    def figures() -> dict[str, float]:
        """Return the memory of Redis after all was sent and nothing taken, which is its peak."""
        from tests.support.queues import lists

        with Redis.from_url(settings.REDIS_URL) as client:
            sizes = [len(raw) for name in lists() for raw in client.lrange(name, 0, -1)]
            used: Any = client.info("memory")
            client.flushdb()
        return {"message_bytes": max(sizes), "redis_mb": used["used_memory"] / 2**20}

    yield Work(timed(lambda _: send()).carry_out, figures=figures)


def _run_with_batches(records: int) -> Any:
    from morango_celery.models import Batch, Run

    run = Run.objects.create(profile="school", state=Run.State.RUNNING, stage=1, stage_models="learner")
    run.stage_batches = run.open_batches = records // RECORDS_PER_BATCH
    run.records = records
    run.save()
    batches: list[Batch] = []
    for number in range(1, run.stage_batches + 1):
        batches.append(Batch.of(run, number, _ids(RECORDS_PER_BATCH)))
        if len(batches) == BATCHES_PER_INSERT or number == run.stage_batches:
            Batch.objects.bulk_create(batches)
            batches.clear()
    return run


def _ids(count: int) -> list[str]:
    return [os.urandom(16).hex() for _ in range(count)]


class Store(Protocol):
    """The interface of the compared stores: `put` stores a value and returns its key, `get` reads it."""

    def put(self, value: Any) -> Any: ...
    def get(self, key: Any) -> Any: ...


OpenStore = Callable[[Path], Store]


class Pynenc:
    """pynenc's store, with the faster one of its serializers for such values."""

    def __init__(self, store: Any) -> None:
        self._store = store

    def put(self, value: Any) -> str:
        key: str = self._store.serialize(value)
        return key

    def get(self, key: str) -> Any:
        self._store._deserialized_cache.clear()  # as in the worker: `put` leaves the value itself there
        return self._store.resolve(key)


def _pynenc_app(folder: Path) -> Any:
    from pynenc import Pynenc as App

    return App(
        config_values={
            "app_id": "bench",
            "serializer_cls": "JsonSerializer",
            "sqlite_db_path": str(folder / "pynenc.sqlite3"),
            "redis_url": settings.REDIS_URL,
        }
    )


def pynenc_redis(folder: Path) -> Store:
    from pynenc_redis.client_data_store import RedisClientDataStore

    return Pynenc(RedisClientDataStore(_pynenc_app(folder)))


def pynenc_sqlite(folder: Path) -> Store:
    from pynenc.client_data_store.sqlite_client_data_store import SQLiteClientDataStore

    return Pynenc(SQLiteClientDataStore(_pynenc_app(folder)))


def pynenc_memory(folder: Path) -> Store:
    from pynenc.client_data_store.mem_client_data_store import MemClientDataStore

    return Pynenc(MemClientDataStore(_pynenc_app(folder)))


class Ours:
    """Our store, with as little in its cache as a worker has that sees a value for the first time."""

    def __init__(self, backend: Any) -> None:
        from morango_celery.payloads import PayloadStore

        self._store = PayloadStore(backend)

    def put(self, value: Any) -> Any:
        return self._store.put(value)

    def get(self, key: Any) -> Any:
        self._store.cache.clear()
        return self._store.get(key)


def ours_redis(folder: Path) -> Store:
    from morango_celery.payloads.redis import RedisBackend

    return Ours(RedisBackend(settings.REDIS_URL))


def ours_sqlite(folder: Path) -> Store:
    """Return our store in the measurement's own database, which is SQLite where the other one's is."""
    from morango_celery.payloads.database import DatabaseBackend

    return Ours(DatabaseBackend())


def ours_memory(folder: Path) -> Store:
    from morango_celery.payloads.memory import MemoryBackend

    return Ours(MemoryBackend())


STORES: dict[str, OpenStore] = {
    "payloads-redis": ours_redis,
    "payloads-sqlite": ours_sqlite,
    "payloads-memory": ours_memory,
    "pynenc-redis": pynenc_redis,
    "pynenc-sqlite": pynenc_sqlite,
    "pynenc-memory": pynenc_memory,
}

MOST_VALUES, FEWEST_VALUES = 200, 5
ALL_BYTES = 40 * 2**20
BYTES_PER_ID = 36


@contextmanager
def values(order: Order) -> Iterator[Work]:
    """Store (or read) lists of ids, each once, and take the median.

    ``put-1MiB:payloads-redis`` is an example of an implementation.
    """
    what, _, name = order.implementation.partition(":")
    operation, _, size = what.partition("-")
    count = max(FEWEST_VALUES, min(MOST_VALUES, ALL_BYTES // SIZES[size]))
    contents = [_ids(SIZES[size] // BYTES_PER_ID + 1) for _ in range(count)]
    with TemporaryDirectory(prefix="bench-payloads-") as folder, Redis.from_url(settings.REDIS_URL) as client:
        client.flushdb()
        store = STORES[name](Path(folder))
        assert store.get(store.put(["to connect"] * 1000)) == ["to connect"] * 1000
        keys = [store.put(value) for value in contents] if operation == "get" else []

        def work() -> float:
            if operation == "put":
                return _seconds(store.put, contents)
            return _seconds(store.get, keys)

        yield Work(lambda _: work())
        client.flushdb()


def _seconds(call: Callable[[Any], Any], arguments: Sequence[Any]) -> float:
    took = []
    for argument in arguments:
        began = time.perf_counter()
        found = call(argument)
        took.append(time.perf_counter() - began)
        del found
    return median(took)
