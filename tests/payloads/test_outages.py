"""Outages of a backend's server or folder: they raise an error that names it, and that may be retried."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from django.db import connection

from morango_celery.errors import PayloadStoreUnavailableError, TransientError
from morango_celery.payloads import Backend
from morango_celery.payloads.database import DatabaseBackend
from morango_celery.payloads.files import FilesBackend
from morango_celery.payloads.redis import RedisBackend
from worker.services import free_port, start_redis

KEY = "ab" * 32

CALLS: dict[str, Callable[[Backend], Any]] = {
    "put": lambda backend: backend.put({KEY: b"blob"}, 60),
    "extend_ttl": lambda backend: backend.extend_ttl([KEY], 60),
    "get": lambda backend: backend.get([KEY]),
}
each_call = pytest.mark.parametrize("call", CALLS.values(), ids=CALLS)


@each_call
def test_unreachable_redis_is_a_transient_error(call: Callable[[Backend], Any]) -> None:
    port = free_port()
    with start_redis(port=port) as url:
        backend = RedisBackend(url)
        backend.put({KEY: b"blob"}, 60)

    with pytest.raises(PayloadStoreUnavailableError, match="Redis that payloads are in can't be reached"):
        call(backend)
    with start_redis(port=port):
        call(backend)


def test_full_redis_is_a_transient_error(redis_url: str) -> None:
    backend = RedisBackend(redis_url)
    client = backend._client
    before: Any = client.config_get("maxmemory")
    client.config_set("maxmemory", "1kb")
    try:
        with pytest.raises(PayloadStoreUnavailableError, match=r"refuses: .*maxmemory"):
            backend.put({KEY: b"blob"}, 60)
    finally:
        client.config_set("maxmemory", before["maxmemory"])


@each_call
@pytest.mark.needs_postgresql
@pytest.mark.django_db(transaction=True)
def test_unreachable_database_is_a_transient_error(
    call: Callable[[Backend], Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    backend = DatabaseBackend()
    backend.put({KEY: b"blob"}, 60)
    connection.close()
    with monkeypatch.context() as patch:
        patch.setitem(connection.settings_dict, "PORT", str(free_port()))
        with pytest.raises(PayloadStoreUnavailableError, match="database that payloads are in"):
            call(backend)

    call(backend)


@pytest.mark.needs_postgresql
@pytest.mark.django_db(transaction=True)
def test_session_that_ended_is_not_used_again() -> None:
    backend = DatabaseBackend()
    backend.put({KEY: b"blob"}, 60)
    with connection.cursor() as cursor, pytest.raises(Exception, match=r"connection"):
        cursor.execute("SELECT pg_terminate_backend(pg_backend_pid())")

    with pytest.raises(PayloadStoreUnavailableError):
        backend.get([KEY])
    assert backend.get([KEY]) == {KEY: b"blob"}


@each_call
def test_missing_folder_is_a_transient_error(call: Callable[[Backend], Any], tmp_path: Path) -> None:
    folder = tmp_path / "payloads"
    backend = FilesBackend(str(folder))

    with pytest.raises(PayloadStoreUnavailableError, match="folder of payloads can't be used"):
        call(backend)
    folder.mkdir()
    call(backend)


def test_outage_of_the_store_may_be_retried() -> None:
    assert issubclass(PayloadStoreUnavailableError, TransientError)
