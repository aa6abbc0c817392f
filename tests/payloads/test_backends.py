"""Conformance tests of backends; each runs on all of them."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager

import pytest
from django.db import connection, transaction

from morango_celery.payloads import Backend, Pruned
from morango_celery.payloads.database import DatabaseBackend
from morango_celery.payloads.models import Payload
from morango_celery.payloads.redis import RedisBackend
from tests.support.clocks import clock_ahead
from tests.support.concurrency import together
from tests.support.waiting import until

KEYS = [f"{number:02x}" + "a" * 62 for number in range(40)]
BLOB = bytes(range(256)) * 40


def test_put_blobs_are_found_and_no_others(backend: Backend) -> None:
    backend.put({KEYS[0]: BLOB, KEYS[1]: b""}, 60)

    assert backend.get(KEYS[:3]) == {KEYS[0]: BLOB, KEYS[1]: b""}
    assert backend.get([]) == {}


def test_put_does_not_replace_stored_bytes(backend: Backend) -> None:
    backend.put({KEYS[0]: b"first"}, 60)
    backend.put({KEYS[0]: b"second", KEYS[1]: b"new"}, 60)

    assert backend.get(KEYS[:2]) == {KEYS[0]: b"first", KEYS[1]: b"new"}


def test_extend_ttl_returns_missing_keys(backend: Backend) -> None:
    backend.put({KEYS[0]: BLOB}, 60)

    assert backend.extend_ttl(KEYS[:3], 60) == {KEYS[1], KEYS[2]}
    assert backend.get(KEYS[1:3]) == {}


def is_gone(backend: Backend, key: str) -> bool:
    backend.prune()
    return not backend.get([key])


def test_expired_blobs_are_removed(backend: Backend) -> None:
    backend.put({KEYS[0]: BLOB, KEYS[1]: BLOB}, 0.05)
    backend.put({KEYS[2]: BLOB}, 60)

    until(lambda: is_gone(backend, KEYS[0]), "removed")
    until(lambda: is_gone(backend, KEYS[1]), "removed")
    assert set(backend.get(KEYS[:3])) == {KEYS[2]}


def test_pruning_counts_removed_blobs_and_redis_needs_none(backend: Backend) -> None:
    backend.put({KEYS[0]: BLOB, KEYS[1]: b"some"}, 0)
    backend.put({KEYS[2]: BLOB}, 60)
    pruned = []

    def are_gone() -> bool:
        pruned.append(backend.prune())
        return not backend.get(KEYS[:2])

    until(are_gone, "removed")

    counts = Pruned(sum(each.blobs for each in pruned), sum(each.size_bytes for each in pruned))
    assert counts == (Pruned(0, 0) if isinstance(backend, RedisBackend) else Pruned(2, len(BLOB) + 4))


def test_machine_whose_clock_is_ahead_removes_nothing_that_others_hold(
    backend: Backend, monkeypatch: pytest.MonkeyPatch
) -> None:
    if isinstance(backend, DatabaseBackend) and connection.vendor == "sqlite":
        pytest.skip("SQLite's clock is this machine's")

    # Given a blob that is kept for a minute, and one by a machine an hour behind, for as long
    backend.put({KEYS[0]: BLOB}, 60)
    with clock_ahead(monkeypatch, -3600):
        backend.put({KEYS[1]: BLOB}, 60)
        assert backend.extend_ttl([KEYS[0]], 60) == set()

    # When a machine prunes with a clock an hour ahead
    with clock_ahead(monkeypatch, 3600):
        assert backend.prune() == Pruned(0, 0)

    # Then both are there
    assert set(backend.get(KEYS[:2])) == {KEYS[0], KEYS[1]}


@pytest.mark.parametrize("again", ["put", "extend_ttl"])
def test_extending_and_putting_again_prolongs_and_never_shortens(backend: Backend, again: str) -> None:
    # Given blobs that expire in a moment and later, and a blob that is extended
    backend.put({KEYS[0]: BLOB, KEYS[2]: BLOB}, 0.2)
    backend.put({KEYS[1]: BLOB}, 60)

    # When two of them are asked for again: one for longer, one for less
    if again == "put":
        backend.put({KEYS[0]: BLOB}, 60)
        backend.put({KEYS[1]: BLOB}, 0.1)
    else:
        assert backend.extend_ttl([KEYS[0]], 60) == backend.extend_ttl([KEYS[1]], 0.1) == set()

    # Then by the time that the third is gone, both are there
    until(lambda: is_gone(backend, KEYS[2]), "removed")
    assert set(backend.get(KEYS[:3])) == {KEYS[0], KEYS[1]}


def test_dropping_removes_all_parts_of_a_value_and_no_other(backend: Backend) -> None:
    whole, parts, other = KEYS[0], [f"{KEYS[1]}.1024.{number}" for number in range(3)], KEYS[2]
    backend.put(dict.fromkeys([whole, *parts, other], BLOB), 60)

    assert backend.delete(KEYS[1]) == 3
    assert backend.delete(whole) == 1
    assert backend.delete(whole) == 0
    assert set(backend.get([whole, *parts, other])) == {other}


def test_any_number_of_writers_may_put_the_same_at_once(backend: Backend) -> None:
    blobs = dict.fromkeys(KEYS, BLOB)

    together([lambda: backend.put(blobs, 60)] * 4)

    assert backend.get(KEYS) == blobs


@pytest.mark.parametrize("how", ["put", "extend_ttl"])
def test_simultaneous_senders_each_get_their_promised_time(backend: Backend, how: str) -> None:
    # Given two who ask for the same blobs, one of them for long
    keys = [f"{number % 4:02x}{number:062x}" for number in range(300)]
    moment = threading.Barrier(2)
    missing: set[str] = set()

    def ask(seconds: float) -> None:
        for key in keys:
            if how == "extend_ttl":
                backend.put({key: BLOB}, 0.2)
            moment.wait(20)
            if how == "put":
                backend.put({key: BLOB}, seconds)
            else:
                missing.update(backend.extend_ttl([key], seconds))

    # When they do so at the same instant, and the time of the other one is up
    together([lambda: ask(3600), lambda: ask(0.5)])
    backend.put({KEYS[39]: BLOB}, 0.6)
    until(lambda: is_gone(backend, KEYS[39]), "removed")

    # Then all are there, but for those of which it was said that they weren't
    assert set(keys) - set(backend.get(keys)) <= missing
    assert len(missing) < len(keys) / 2


@contextmanager
def pruning(backend: Backend) -> Iterator[None]:
    """Somebody who does nothing else."""
    over = threading.Event()

    def prune() -> None:
        while not over.is_set():
            backend.prune()
        connection.close()

    thread = threading.Thread(target=prune)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join(20)


@pytest.mark.parametrize("again", ["put", "extend_ttl"])
def test_nothing_that_was_promised_is_pruned(backend: Backend, again: str) -> None:
    """Each blob's time is up at once; then it is asked for again, while pruners are about to remove it."""
    lost: list[str] = []

    def write(mine: str) -> None:
        for number in range(40):
            key = f"{number % 4:02x}{mine}{number:060x}"
            backend.put({key: BLOB}, 0)
            if again == "put":
                backend.put({key: BLOB}, 60)
            elif backend.extend_ttl([key], 60):
                continue  # pruned before that; but it said so
            if not backend.get([key]):
                lost.append(key)

    with pruning(backend), pruning(backend):
        together([lambda: write("aa"), lambda: write("bb")])

    assert lost == []


@pytest.mark.needs_postgresql
@pytest.mark.django_db(transaction=True)
def test_extension_by_less_does_not_shorten_a_simultaneous_longer_one() -> None:
    # Given an expired row, and an open transaction that has extended its time to live by much
    backend = DatabaseBackend()
    backend.put({KEYS[0]: BLOB}, 0)

    def extend_for_less() -> None:
        backend.extend_ttl([KEYS[0]], 60)
        connection.close()

    waits = threading.Thread(target=extend_for_less)
    with transaction.atomic():
        backend.extend_ttl([KEYS[0]], 6000)
        promised = Payload.objects.get().expires_at

        # When another one, who can't see that yet, holds it for less
        waits.start()
        until(somebody_waits_for_a_lock, "waiting")
    waits.join(20)

    # Then it is kept for as long as the first was promised
    assert Payload.objects.get().expires_at >= promised


def somebody_waits_for_a_lock() -> bool:
    with connection.cursor() as cursor:
        cursor.execute("SELECT count(*) FROM pg_locks WHERE NOT granted")
        (count,) = cursor.fetchone()
    return bool(count)
