"""Serialization in a session of its own, and others that come in between."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any

from django.db import connection
from morango.models import DeletedModels, Store, SyncableModel

from tests.support.waiting import another_connection, until
from worker.school.models import PROFILE, Unit

Engine = Callable[..., None]
Other = Callable[..., None]


@contextmanager
def other_session() -> Iterator[Other]:
    """Yield a function that executes a statement in another transaction; "COMMIT" ends it too."""
    with another_connection() as session, session.cursor() as cursor:
        session.autocommit = True  # the statements say where transactions begin and end
        yield cursor.execute


@contextmanager
def sessions() -> Iterator[Callable[[Engine], Future[None]]]:
    """Yield a function that starts a serialization beside the test; all have ended after the block."""
    with ThreadPoolExecutor(max_workers=32) as pool:
        yield lambda engine: pool.submit(_in_a_session, engine)


def _in_a_session(engine: Engine) -> None:
    try:
        with connection.cursor() as cursor:
            cursor.execute("SET deadlock_timeout = '2s'")
        engine(PROFILE)
    finally:
        connection.close()


def until_waiting(sessions: int = 1) -> None:
    """Until so many sessions wait for a lock."""

    def waiting() -> bool:
        with connection.cursor() as cursor:
            cursor.execute("SELECT pg_stat_clear_snapshot()")  # there is one per transaction
            cursor.execute(
                "SELECT count(*) FROM pg_stat_activity"
                " WHERE wait_event_type = 'Lock' AND datname = current_database()"
            )
            return bool(cursor.fetchone()[0] == sessions)

    until(waiting, f"{sessions} sessions waiting")


def interrupted(function: Callable[..., Any], interrupt: Callable[[], None]) -> Callable[..., Any]:
    """Return `function` with an interruption before its first call."""
    left = [interrupt]

    def call(*args: Any) -> Any:
        while left:
            left.pop()()
        return function(*args)

    return call


def stored_name(row: SyncableModel) -> str:
    """Return the name of a unit in its Store row."""
    return str(json.loads(Store.objects.get(id=row.pk).serialized)["name"])


def dirty_names() -> list[str]:
    """Return the names of the units that are still to be serialized."""
    return sorted(Unit.objects.filter(_morango_dirty_bit=True).values_list("name", flat=True))


def is_noted(row: SyncableModel) -> bool:
    """Return True if the deletion of a row is still to be serialized."""
    return bool(DeletedModels.objects.filter(id=row.pk).exists())
