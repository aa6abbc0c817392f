"""Points at which a process may be killed: right before a statement or COMMIT, or in the middle of one.

The process calls `watch_statements` and `watch_commits` once; `watch` says who decides about its death.
"""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable
from typing import Any, Protocol

import psycopg2
from django.db.backends.base.base import BaseDatabaseWrapper
from django.db.backends.signals import connection_created

NAP_SECONDS = 2


class Watched(Protocol):
    def before(self, what: str) -> bool:
        """Count a point, and die if that is the plan.

        :returns: whether to `die` in the middle of the statement
        """
        ...

    def die(self, what: str) -> None: ...


_watched: Watched | None = None


def watch(watched: Watched | None) -> None:
    """Let `watched` decide about the death of this process; None if it isn't to die."""
    global _watched
    _watched = watched


def before(what: str) -> bool:
    return _watched is not None and _watched.before(what)


def watch_statements() -> None:
    connection_created.connect(_watch_connection)


def _watch_connection(connection: BaseDatabaseWrapper, **_: Any) -> None:
    if _statement not in connection.execute_wrappers:
        connection.execute_wrappers.append(_statement)


def _statement(execute: Callable[..., Any], sql: Any, params: Any, many: bool, context: Any) -> Any:
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
    threading.Thread(target=_die_when_asleep, args=about, daemon=True).start()
    return execute(sent, params, many, context)


def _die_when_asleep(what: str, pid: int, other: Any) -> None:
    with contextlib.closing(other), other.cursor() as cursor:
        while _watched is not None:
            cursor.execute("SELECT wait_event FROM pg_stat_activity WHERE pid = %s", [pid])
            if cursor.fetchall() == [("PgSleep",)]:
                _watched.die(what)


def watch_commits() -> None:
    commit = BaseDatabaseWrapper._commit  # type: ignore[attr-defined]  # Django's own

    def watched_commit(connection: BaseDatabaseWrapper) -> None:
        before("COMMIT")
        commit(connection)

    BaseDatabaseWrapper._commit = watched_commit  # type: ignore[attr-defined]  # the same
