"""Kills its worker, as `tests.faults.deaths.plan` has it: right before the n-th event of a task.

Or in the middle of it, if it is a statement: while the server is at it.

An event is a statement, a COMMIT, a message sent, or the end of a task, whose acknowledgement is all that
is missing then. To the world, after one event is before the next.
"""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable
from typing import Any

import psycopg2
from django.apps import AppConfig
from django.db.backends.base.base import BaseDatabaseWrapper
from django.db.backends.signals import connection_created
from typing_extensions import override

from tests.faults.deaths.plan import Watched


class DeathsConfig(AppConfig):
    name = "tests.faults.deaths"

    @override
    def ready(self) -> None:
        from celery.concurrency.asynpool import AsynPool
        from celery.signals import before_task_publish, task_postrun, task_prerun

        task_prerun.connect(begin)
        task_postrun.connect(end)
        before_task_publish.connect(about_to_send)
        connection_created.connect(watch_statements)
        watch_commits()
        # Otherwise Celery may take five seconds to notice that a process of its pool is gone.
        AsynPool.timers = property(lambda pool: {pool.maintain_pool: 0.2})


NAP_SECONDS = 2

_watched: Watched | None = None


def begin(task: Any, args: Any, **_: Any) -> None:
    global _watched
    _watched = None
    _watched = Watched.of(task.name, args)


def end(**_: Any) -> None:
    global _watched
    before("end of the task")
    _watched = None


def before(what: str) -> bool:
    return _watched is not None and _watched.before(what)


def about_to_send(sender: str, **_: Any) -> None:
    before(f"message {sender}")


def watch_statements(connection: BaseDatabaseWrapper, **_: Any) -> None:
    if statement not in connection.execute_wrappers:
        connection.execute_wrappers.append(statement)


def statement(execute: Callable[..., Any], sql: Any, params: Any, many: bool, context: Any) -> Any:
    if not before(str(sql)):
        return execute(sql, params, many, context)
    cursor, connection = context["cursor"], context["connection"].connection
    nap = f"SELECT pg_sleep({NAP_SECONDS})"
    # What is sent with it is executed too, whether anybody is there any more or not
    first = cursor.name or str(sql).startswith("ROLLBACK")  # before it, nothing else can be executed
    sent = f"{sql}; {nap}" if first else f"{nap}; {sql}"
    other = psycopg2.connect(**context["connection"].get_connection_params())
    other.autocommit = True
    about = str(sql), connection.info.backend_pid, other
    threading.Thread(target=die_when_asleep, args=about, daemon=True).start()
    return execute(sent, params, many, context)


def die_when_asleep(what: str, pid: int, other: Any) -> None:
    with contextlib.closing(other), other.cursor() as cursor:
        while _watched is not None:
            cursor.execute("SELECT wait_event FROM pg_stat_activity WHERE pid = %s", [pid])
            if cursor.fetchall() == [("PgSleep",)]:
                _watched.die(what)


def watch_commits() -> None:
    commit = BaseDatabaseWrapper._commit  # type: ignore[attr-defined]

    def watched_commit(connection: BaseDatabaseWrapper) -> None:
        before("COMMIT")
        commit(connection)

    BaseDatabaseWrapper._commit = watched_commit  # type: ignore[attr-defined]
