"""Cache of values that were read."""

from __future__ import annotations

import os
import threading
from typing import Any

from typing_extensions import override

from morango_celery.payloads import PayloadStore
from morango_celery.payloads.cache import Cache
from morango_celery.payloads.memory import MemoryBackend
from tests.payloads.conftest import Tune
from tests.support.concurrency import together


def test_least_recently_used_value_makes_room() -> None:
    cache = Cache()
    cache.add("a", b"x" * 40, 100)
    cache.add("b", b"x" * 40, 100)
    cache.get("a")
    cache.add("c", b"x" * 40, 100)

    assert [cache.get(key) is None for key in "abc"] == [False, True, False]
    assert cache.size_bytes == 80


def test_value_larger_than_the_cache_is_not_cached() -> None:
    cache = Cache()
    cache.add("large", b"x" * 101, 100)

    assert (cache.get("large"), cache.size_bytes) == (None, 0)


def test_value_added_twice_counts_once() -> None:
    cache = Cache()
    cache.add("a", b"x" * 60, 100)
    cache.add("a", b"x" * 60, 100)

    assert (cache.get("a"), cache.size_bytes) == (b"x" * 60, 60)


class Far(MemoryBackend):
    """Backend that counts as another process'."""

    is_in_process = False


def test_process_holds_no_more_bytes_than_it_may(tune: Tune) -> None:
    tune(CACHE_BYTES=10_000)
    store = PayloadStore(Far())
    references = [store.put(f"{number}" * 1000) for number in range(30)]

    for reference in references:
        store.get(reference)

    assert 8_000 < store.cache.size_bytes <= 10_000


def test_value_of_a_store_in_process_is_not_cached(in_memory: PayloadStore) -> None:
    assert in_memory.get(in_memory.put("value")) == "value"

    assert in_memory.cache.size_bytes == 0


def test_cached_value_is_not_read_again() -> None:
    class Counting(Far):
        asked = 0

        @override
        def get(self, keys: Any) -> dict[str, bytes]:
            self.asked += 1
            return super().get(keys)

    store = PayloadStore(Counting())
    reference = store.put("value")

    assert [store.get(reference) for _ in range(3)] == ["value"] * 3
    assert store.backend.asked == 1  # type: ignore[attr-defined]  # the one above


def test_threads_do_not_miscount() -> None:
    cache = Cache()

    def use() -> None:
        for number in range(3000):
            key = str(number % 17)
            cache.add(key, key.encode() * 20, 300)
            cache.get(str((number * 7) % 17))

    together([use] * 4)

    assert cache.size_bytes == sum(len(data) for data in cache._found.values()) <= 300


def test_forked_process_waits_for_no_thread_of_its_parent() -> None:
    """Only the forking thread lives on in the child: a lock that another thread held is never released."""
    store = PayloadStore(MemoryBackend())
    reference = store.put("value")
    store.get(reference)
    taken, over = threading.Event(), threading.Event()

    def hold() -> None:
        with store.cache._lock, store.backend._lock:  # type: ignore[attr-defined]  # the one above
            taken.set()
            over.wait(20)

    holder = threading.Thread(target=hold)
    holder.start()
    taken.wait(20)
    child = os.fork()
    if not child:
        # No test framework in here: only whether it comes to an end
        status = 0 if store.cache.size_bytes == 0 and store.get(reference) == "value" else 1
        os._exit(status)
    try:
        ended = threading.Event()
        statuses: list[int] = []

        def wait() -> None:
            statuses.append(os.waitpid(child, 0)[1])
            ended.set()

        threading.Thread(target=wait, daemon=True).start()
        if not ended.wait(20):
            os.kill(child, 9)
        assert ended.wait(20)
        assert statuses == [0]
    finally:
        over.set()
        holder.join(20)
