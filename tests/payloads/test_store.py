"""Values in and out, on every backend."""

from __future__ import annotations

import hashlib
import json
import logging
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from typing_extensions import override

from morango_celery.errors import CorruptPayloadError, MissingPayloadError
from morango_celery.payloads import PayloadStore, Reference
from morango_celery.payloads.blobs import PLAIN, ZSTANDARD
from morango_celery.payloads.memory import MemoryBackend
from morango_celery.payloads.redis import RedisBackend
from tests.payloads.conftest import Tune
from tests.payloads.values import JSON
from tests.support.concurrency import together

many = settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])


@many
@given(value=JSON)
def test_any_value_comes_back(store: PayloadStore, value: Any) -> None:
    store.cache.clear()

    assert store.get(store.put(value)) == value


@many
@given(value=JSON)
def test_key_is_the_hash_of_the_values_canonical_bytes(value: Any) -> None:
    data = json.dumps(value, separators=(",", ":")).encode()

    reference = PayloadStore(MemoryBackend()).put(value)

    assert (reference.sha256, reference.size_bytes) == (hashlib.sha256(data).hexdigest(), len(data))


def test_order_of_keys_is_kept(in_memory: PayloadStore) -> None:
    names = ["b", "a", "c"]

    assert list(in_memory.get(in_memory.put(dict.fromkeys(names, 1)))) == names


class Counting(MemoryBackend):
    """Counts the bytes that it is given."""

    is_in_process = False
    given_bytes = 0

    @override
    def put(self, blobs: Any, seconds: float) -> None:
        self.given_bytes += sum(map(len, blobs.values()))
        super().put(blobs, seconds)


def test_equal_values_are_stored_once_and_large_ones_sent_once() -> None:
    backend = Counting()
    store = PayloadStore(backend)
    value = [f"{number:032x}" for number in range(5000)]

    first = store.put(value)
    sent = backend.given_bytes
    second = store.put(list(value))

    assert first == second
    assert backend.given_bytes == sent > 0
    assert len(backend._blobs) == 1


def test_simultaneous_users_of_one_value_all_get_it(store: PayloadStore) -> None:
    value = ["some text"] * 20_000

    def put_and_get() -> Any:
        found = store.get(store.put(value))
        store.cache.clear()
        return found

    assert together([put_and_get] * 4) == [value] * 4


def test_each_caller_gets_a_value_of_its_own(store: PayloadStore) -> None:
    reference = store.put({"ids": ["one", "two"]})
    first = store.get(reference)
    first["ids"].append("three")

    assert store.get(reference) == {"ids": ["one", "two"]}
    assert store.backend.is_in_process or store.cache.size_bytes > 0, "the second came from the cache"


@pytest.mark.parametrize("size", [1, 1021, 1022, 1023, 2046, 2047, 3 * 1024 - 2, 10_000])
def test_values_are_split_at_the_size_of_a_chunk(store: PayloadStore, tune: Tune, size: int) -> None:
    tune(CHUNK_BYTES=1024, COMPRESS_BYTES=1)
    value = "".join(chr(97 + (number * number) % 23) for number in range(size))

    reference = store.put(value)

    stored = size + 2
    assert len(reference.parts()) == -(-stored // 1024)
    assert (reference.chunk_bytes is None) is (stored <= 1024)
    assert store.get(reference) == value
    assert len(store.backend.get(reference.parts())) == len(reference.parts())


def test_value_that_was_split_otherwise_is_still_read(store: PayloadStore, tune: Tune) -> None:
    value = "long" * 2000
    tune(CHUNK_BYTES=1024)
    finely = store.put(value)
    tune(CHUNK_BYTES=4096)
    roughly = store.put(value)
    tune(CHUNK_BYTES=1024 * 1024)
    store.put(value)

    for reference in (finely, roughly):
        store.cache.clear()
        assert store.get(reference) == value


def test_only_compressible_parts_are_compressed(redis_url: str, tune: Tune) -> None:
    tune(COMPRESS_BYTES=200)
    store = PayloadStore(RedisBackend(redis_url))

    def blob(value: Any) -> bytes:
        (found,) = store.backend.get(store.put(value).parts()).values()
        return found

    compressed = blob("same" * 1000)
    assert compressed[:1] == ZSTANDARD
    assert len(compressed) < 100
    assert blob("same" * 49)[:1] == PLAIN  # 198 bytes
    assert blob("same" * 50)[:1] == ZSTANDARD


def test_incompressible_part_is_kept_plain(in_memory: PayloadStore) -> None:
    from morango_celery.payloads.blobs import packed, unpacked

    noise = b"".join(hashlib.sha256(bytes([number])).digest() for number in range(200))

    assert packed(noise, compress=True) == PLAIN + noise
    assert unpacked(PLAIN + noise, len(noise)) == noise


def test_large_value_is_stored_with_a_warning(
    in_memory: PayloadStore, tune: Tune, caplog: pytest.LogCaptureFixture
) -> None:
    tune(WARN_BYTES=1000)
    with caplog.at_level(logging.WARNING):
        in_memory.put("x" * 997)
        assert caplog.text == ""
        in_memory.put("x" * 998)

    assert "1,000 bytes" in caplog.text


def test_missing_value_is_named_with_likely_causes(store: PayloadStore) -> None:
    reference = Reference("ab" * 32, 10)

    with pytest.raises(
        MissingPayloadError, match=rf"{'ab' * 32} is not in the store; 0 of its 1 .*TTL_SECONDS"
    ):
        store.get(reference)


def test_value_of_which_a_part_is_missing_is_missing(store: PayloadStore, tune: Tune) -> None:
    tune(CHUNK_BYTES=1024)
    reference = store.put("long" * 1000)
    store.backend.delete(reference.parts()[2])

    with pytest.raises(MissingPayloadError, match="3 of its 4 parts"):
        store.get(reference)


@pytest.mark.parametrize("compress_bytes", [1, 10**6])
@pytest.mark.parametrize(
    "damage",
    [
        lambda blob: b"",
        lambda blob: blob[:-1],
        lambda blob: blob + b" ",
        lambda blob: blob[:20] + bytes([blob[20] ^ 1]) + blob[21:],
        lambda blob: b"?" + blob[1:],
        lambda blob: PLAIN + b'"other"',
    ],
    ids=["emptied", "cut", "longer", "one-bit", "another-kind", "another-value"],
)
def test_damaged_value_raises_an_error_that_names_the_remedy(
    store: PayloadStore, tune: Tune, damage: Any, compress_bytes: int
) -> None:
    # Given a value with bytes that have changed since
    tune(COMPRESS_BYTES=compress_bytes)
    value = [f"{number:032x}" for number in range(100)]
    reference = store.put(value)
    (key,) = reference.parts()
    (blob,) = store.backend.get([key]).values()
    store.backend.delete(key)
    store.backend.put({key: damage(blob)}, 60)

    # When it is read, then that is seen
    with pytest.raises(CorruptPayloadError, match=f"prune_payloads --delete {reference.sha256}"):
        store.get(reference)

    # ... and once it was deleted, the value can be stored anew
    assert store.delete(reference.sha256) == 1
    assert store.get(store.put(value)) == value


def test_value_is_kept_for_the_lifetime_or_for_as_long_as_asked(
    in_memory: PayloadStore, configure: Any
) -> None:
    backend = in_memory.backend
    assert isinstance(backend, MemoryBackend)
    configure(TTL_SECONDS=100)

    short, long = in_memory.put("short"), in_memory.put("long", 1000)
    kept = [backend._expires_at[reference.sha256] for reference in (short, long)]
    assert kept[1] - kept[0] == pytest.approx(900, abs=5)

    in_memory.extend_ttl([short], 2000)
    in_memory.extend_ttl([long])
    kept = [backend._expires_at[reference.sha256] for reference in (short, long)]
    assert kept[0] - kept[1] == pytest.approx(1000, abs=5)
