"""Fixtures of a store on each backend."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any, Protocol

import pytest
from pytest_django import Settings
from redis import Redis

from morango_celery.payloads import Backend, PayloadStore
from morango_celery.payloads import configured as configured_stores
from morango_celery.payloads import redis as redis_backend
from morango_celery.payloads import store as payload_sizes
from morango_celery.payloads.configured import payload_store
from morango_celery.payloads.memory import MemoryBackend

IN_TRANSACTIONS = pytest.mark.django_db(transaction=True)
REDIS, FILES, MEMORY = (
    pytest.param(name, marks=pytest.mark.needs_postgresql)  # beside one database is enough: they use none
    for name in ("redis", "files", "memory")
)
SHARED = (pytest.param("database", marks=IN_TRANSACTIONS), REDIS, FILES)
"""The backends that more than one process can use."""


@pytest.fixture(params=(*SHARED, MEMORY))
def backend_settings(request: pytest.FixtureRequest, tmp_path: Path, settings: Settings) -> dict[str, Any]:
    """Set and return MORANGO_CELERY_PAYLOADS for each backend."""
    return _configure(request.param, request, tmp_path, settings)


@pytest.fixture(params=SHARED)
def shared_settings(request: pytest.FixtureRequest, tmp_path: Path, settings: Settings) -> dict[str, Any]:
    """Set and return it for the backends that more than one process can use."""
    return _configure(request.param, request, tmp_path, settings)


def _configure(
    name: str, request: pytest.FixtureRequest, tmp_path: Path, settings: Settings
) -> dict[str, Any]:
    location = ""
    if name == "redis":
        location = request.getfixturevalue("redis_url")
    elif name == "files":
        location = str(tmp_path / "payloads")
        Path(location).mkdir()
    configured = {"BACKEND": name, "LOCATION": location}
    settings.MORANGO_CELERY_PAYLOADS = configured
    return configured


@pytest.fixture(autouse=True)
def _no_store_is_left(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    opened: list[Redis] = []

    class Client(Redis):
        def __init__(self, **options: Any) -> None:
            super().__init__(**options)
            opened.append(self)

    monkeypatch.setattr(redis_backend, "Redis", Client)
    yield
    configured_stores._store.cache_clear()
    for client in opened:
        client.connection_pool.disconnect()


@pytest.fixture
def store(backend_settings: dict[str, Any]) -> PayloadStore:
    return payload_store()


@pytest.fixture
def backend(store: PayloadStore) -> Backend:
    return store.backend


@pytest.fixture
def in_memory(tmp_path: Path, settings: Settings, request: pytest.FixtureRequest) -> PayloadStore:
    """Return a store in memory, for tests that don't depend on the backend."""
    _configure("memory", request, tmp_path, settings)
    return payload_store()


@pytest.fixture
def memory_backend(in_memory: PayloadStore) -> MemoryBackend:
    assert isinstance(in_memory.backend, MemoryBackend)
    return in_memory.backend


@pytest.fixture
def broker(redis_url: str, in_memory: PayloadStore) -> Iterator[Redis]:
    """Yield a client of the broker, to which tasks are sent whose arguments are stored in memory."""
    with Redis.from_url(redis_url) as found:
        yield found


@pytest.fixture
def configure(settings: Settings) -> Any:
    """Return a function that changes single keys of MORANGO_CELERY_PAYLOADS."""

    def change(**keys: Any) -> None:
        settings.MORANGO_CELERY_PAYLOADS = {**getattr(settings, "MORANGO_CELERY_PAYLOADS", {}), **keys}

    return change


class Tune(Protocol):
    def __call__(self, **constants: int) -> None: ...


@pytest.fixture
def tune(monkeypatch: pytest.MonkeyPatch) -> Tune:
    """Return a function that gives a store's sizes other values, so that small ones are large."""

    def change(**constants: int) -> None:
        for name, value in constants.items():
            monkeypatch.setattr(payload_sizes, name, value)

    return change
