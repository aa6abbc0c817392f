"""Waiting for events in other processes, and holding these up in the middle."""

from __future__ import annotations

import binascii
import contextlib
import time
from collections.abc import Callable, Iterator
from typing import Any

import psutil
import psycopg2
from django.db import connection

from tests.support.processes import PATIENCE_SECONDS


def until(happened: Callable[[], Any], what: str, timeout_seconds: float = PATIENCE_SECONDS) -> Any:
    """Return the value of `happened` once it is true."""
    deadline = time.monotonic() + timeout_seconds
    while not (result := happened()):
        assert time.monotonic() < deadline, f"not {what} after {timeout_seconds} s"
        time.sleep(0.02)
    return result


@contextlib.contextmanager
def held(*store_ids: str) -> Iterator[int]:
    """Keep Store rows locked by a connection of another's. Yields the process id of its session."""
    with another_connection() as other, other.cursor() as cursor:
        cursor.execute("SELECT 1 FROM morango_store WHERE id = ANY(%s::uuid[]) FOR UPDATE", [list(store_ids)])
        yield other.info.backend_pid


@contextlib.contextmanager
def held_rows(table: str, condition: str) -> Iterator[int]:
    """Keep rows of a table locked likewise. Yields the process id of the session that has them."""
    with another_connection() as other, other.cursor() as cursor:
        cursor.execute(f"SELECT 1 FROM {table} WHERE {condition} FOR UPDATE")
        assert cursor.rowcount
        yield other.info.backend_pid


@contextlib.contextmanager
def held_partition(partition: str) -> Iterator[int]:
    """Be alone on a partition, as Morango is while it dequeues; likewise."""
    # Needs Django's settings, which tests' conftest files are read without
    from morango.sync.backends.postgres import LOCK_ALL_PARTITIONS, LOCK_PARTITION, SIGNED_MAX_INTEGER

    key = binascii.crc32(partition.encode()) - SIGNED_MAX_INTEGER
    with another_connection() as other, other.cursor() as cursor:
        cursor.execute("SELECT pg_advisory_xact_lock_shared(%s)", [LOCK_ALL_PARTITIONS])
        cursor.execute("SELECT pg_advisory_xact_lock(%s, %s)", [LOCK_PARTITION, key])
        yield other.info.backend_pid


@contextlib.contextmanager
def held_runs() -> Iterator[None]:
    """Keep all rows of runs locked, as processes that carry them out do now and then."""
    with another_connection() as other, other.cursor() as cursor:
        cursor.execute("SELECT 1 FROM morango_celery_run FOR UPDATE")
        yield


@contextlib.contextmanager
def held_store() -> Iterator[None]:
    """Keep the whole Store locked, so that nobody can even read it.

    Not for ever, should the test itself come to wait for it: no time limit of pytest's reaches into libpq.
    """
    with another_connection() as other, other.cursor() as cursor:
        cursor.execute("SET idle_in_transaction_session_timeout = %s", [f"{PATIENCE_SECONDS}s"])
        cursor.execute("LOCK TABLE morango_store IN ACCESS EXCLUSIVE MODE")
        yield


@contextlib.contextmanager
def another_connection() -> Iterator[Any]:
    """Yield a connection to the test's PostgreSQL database beside Django's."""
    settings = connection.settings_dict
    other = psycopg2.connect(
        dbname=settings["NAME"],
        user=settings["USER"],
        password=settings["PASSWORD"],
        host=settings["HOST"],
        port=settings["PORT"],
    )
    try:
        yield other
    finally:
        other.close()


def sessions_that_wait_for_a_lock(holder: int | None = None) -> set[int]:
    """Return the database sessions that are held up, by their client's port.

    :param holder: by this session, not by each other
    """
    with connection.cursor() as cursor:
        cursor.execute(
            "SELECT client_port FROM pg_stat_activity WHERE wait_event_type = 'Lock'"
            " AND (%(holder)s IS NULL OR %(holder)s = ANY(pg_blocking_pids(pid)))",
            {"holder": holder},
        )
        return {port for (port,) in cursor.fetchall()}


def children_that_wait_for_a_lock(worker_pid: int, holder: int | None = None) -> list[psutil.Process]:
    """Return the pool processes of a worker on this machine whose database sessions are held up, likewise."""
    ports = sessions_that_wait_for_a_lock(holder)
    found = []
    for child in psutil.Process(worker_pid).children(recursive=True):
        with contextlib.suppress(psutil.NoSuchProcess):  # a worker's helpers come and go
            if any(socket.laddr and socket.laddr.port in ports for socket in child.net_connections()):
                found.append(child)
    return found


def child_that_waits_for_a_lock(worker_pid: int, holder: int | None = None) -> psutil.Process | None:
    """Return the first of them."""
    return next(iter(children_that_wait_for_a_lock(worker_pid, holder)), None)


def has_ended(process: psutil.Process) -> bool:
    with contextlib.suppress(psutil.NoSuchProcess):
        return bool(process.status() == psutil.STATUS_ZOMBIE)
    return True
