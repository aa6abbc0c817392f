"""The embedded servers: real ones, which leave nothing behind and report missing programs."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import urlsplit

import psycopg2
import pytest
import redis

from worker import services


@pytest.fixture(autouse=True)
def own_servers(monkeypatch: pytest.MonkeyPatch, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """Nothing in the environment names a server; temporary folders are made where we can see them."""
    tmp_path_factory.getbasetemp()  # lest pytest makes its own in ours
    for name in ("REDIS_URL", "DATABASE_URL"):
        monkeypatch.delenv(name)
    with tempfile.TemporaryDirectory() as folder:  # pytest's own are closed to PostgreSQL's account
        Path(folder).chmod(0o755)
        monkeypatch.setattr("tempfile.tempdir", folder)
        yield Path(folder)
        monkeypatch.undo()


def query(url: str, sql: str) -> str:
    connection = psycopg2.connect(url)
    try:
        with connection.cursor() as cursor:
            cursor.execute(sql)
            return str(cursor.fetchone()[0])  # type: ignore[index]
    finally:
        connection.close()


def test_redis_starts_and_stops(own_servers: Path) -> None:
    with services.redis() as url, redis.Redis.from_url(url) as client:
        client.set("key", "value")
        version = client.info("server")["redis_version"]
        assert client.config_get("appendonly") == {"appendonly": "no"}

    assert tuple(map(int, version.split(".")[:2])) >= services.OLDEST_REDIS
    with redis.Redis.from_url(url) as client, pytest.raises(redis.ConnectionError):
        client.ping()
    assert list(own_servers.iterdir()) == []


def test_durable_redis_writes_each_command() -> None:
    with services.redis(durable=True) as url, redis.Redis.from_url(url) as client:
        assert client.config_get("append*")["appendonly"] == "yes"
        assert client.config_get("append*")["appendfsync"] == "always"


def test_postgres_starts_and_stops(own_servers: Path) -> None:
    with services.postgres() as url:
        assert query(url, "SHOW server_encoding") == "UTF8"
        assert query(url, "SHOW fsync") == "off"

    with pytest.raises(psycopg2.OperationalError):
        psycopg2.connect(url)
    assert list(own_servers.iterdir()) == []


def test_durable_postgres_survives_a_power_cut() -> None:
    with services.postgres(durable=True) as url:
        assert query(url, "SHOW fsync") == "on"


def test_postgres_stops_although_a_client_is_connected(own_servers: Path) -> None:
    with services.postgres() as url:
        connection = psycopg2.connect(url)
        began = time.monotonic()
    assert time.monotonic() - began < services.STOP_SECONDS / 2, "it had to be killed"

    with pytest.raises(psycopg2.OperationalError), connection.cursor() as cursor:
        cursor.execute("SELECT 1")
    connection.close()
    assert list(own_servers.iterdir()) == []


def test_error_inside_still_removes_everything(own_servers: Path) -> None:
    with pytest.raises(ZeroDivisionError), services.redis(), services.postgres():
        raise ZeroDivisionError

    assert list(own_servers.iterdir()) == []


def test_servers_in_the_environment_are_used(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("REDIS_URL", "redis://elsewhere/3")
    monkeypatch.setenv("DATABASE_URL", "postgresql://elsewhere/db")

    with services.redis() as redis_url, services.postgres() as database_url:
        assert (redis_url, database_url) == ("redis://elsewhere/3", "postgresql://elsewhere/db")


def test_missing_server_is_an_error_with_its_remedy(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    monkeypatch.setenv("PATH", "")

    with pytest.raises(services.ServiceError, match=r"set REDIS_URL.*morango-celery\[services\]"):
        services.redis().__enter__()
    with pytest.raises(services.ServiceError, match=r"set DATABASE_URL.*morango-celery\[services\]"):
        services.postgres().__enter__()


def test_old_redis_on_path_is_not_taken(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    old = tmp_path / "redis-server"
    old.write_text("#!/bin/sh\necho 'Redis server v=5.0.14 sha=0 malloc=libc bits=64'\n")
    old.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=os.pathsep)
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)

    with pytest.raises(services.ServiceError, match="is older"):
        services.redis().__enter__()


def test_server_that_ends_at_once_shows_its_log(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    broken = tmp_path / "redis-server"
    broken.write_text("#!/bin/sh\n[ $1 = --version ] && echo v=7.0.0 && exit\necho no luck today\nexit 3\n")
    broken.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=os.pathsep)

    with pytest.raises(services.ServiceError, match=r"(?s)ended with status 3.*no luck today"):
        services.redis().__enter__()


def test_wrong_folder_of_postgresql_is_named(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("POSTGRES_BIN_DIR", str(tmp_path))

    with pytest.raises(services.ServiceError, match=r"POSTGRES_BIN_DIR=.* doesn't hold"):
        services.postgres().__enter__()


@pytest.mark.parametrize("end", [signal.SIGINT, signal.SIGTERM])
def test_command_prints_what_to_export_and_cleans_up(own_servers: Path, end: signal.Signals) -> None:
    process = subprocess.Popen(
        [sys.executable, "-m", "worker.services"],
        env={**os.environ, "TMPDIR": str(own_servers)},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert process.stdout
    exports = dict(process.stdout.readline().removeprefix("export ").rstrip().split("=", 1) for _ in "12")
    try:
        assert query(exports["DATABASE_URL"], "SHOW fsync") == "on"
        assert urlsplit(exports["REDIS_URL"]).scheme == "redis"
    finally:
        process.send_signal(end)
        _, errors = process.communicate(timeout=30)

    assert process.returncode == 0, errors
    assert list(own_servers.iterdir()) == []
