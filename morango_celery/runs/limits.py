"""Time limits of a worker's transactions: its waits for locks, and the server's waits for it.

Celery's soft time limit doesn't reach a wait inside PostgreSQL's client library. And a worker that is frozen,
or has vanished with its machine, holds its locks for as long as the server lets it.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from typing import Any

from django.db import connection
from django.db.models import Func, TextField, Value

from morango_celery.db.dialect import dialect

MAX_LOCK_SECONDS = 10.0
"""Longest wait for a lock. After it, a task leaves the process to others, and is tried again later."""

CHECK_SECONDS = 2
"""Time between the server's checks that the client of a statement is still there."""

CHECKS_CLIENTS_SINCE = 140000
"""First version of PostgreSQL that makes such checks."""


@dataclass(frozen=True)
class Limits:
    """Limits of each transaction of one task."""

    lock_seconds: float = MAX_LOCK_SECONDS
    idle_seconds: float | None = None
    """Longest wait of the server for a transaction's next statement; None for the server's own setting."""

    @classmethod
    def of_task(cls, hard_seconds: float | None, soft_seconds: float | None) -> Limits:
        """Derive limits from the time limits of a task.

        A wait for a lock takes a quarter of the soft limit at most, and half of the time between the limits:
        one that begins before the soft limit ends before the hard one. The server's wait ends after the hard
        limit: until then a model's own code may take its time.
        """
        bounds = [MAX_LOCK_SECONDS]
        if last := soft_seconds or hard_seconds:
            bounds.append(last / 4)
        if hard_seconds and soft_seconds and hard_seconds > soft_seconds:
            bounds.append((hard_seconds - soft_seconds) / 2)
        return cls(min(bounds), hard_seconds * 1.1 if hard_seconds else None)


_current: ContextVar[Limits | None] = ContextVar("limits of transactions", default=None)


@contextmanager
def within(limits: Limits | None) -> Iterator[None]:
    """Limit the transactions of runs that are begun in this context."""
    token = _current.set(limits)
    try:
        yield
    finally:
        _current.reset(token)


def current_limits() -> Limits | None:
    """Return the limits of this context."""
    return _current.get()


def limited() -> dict[str, Any]:
    """Return annotations for a transaction's first query, which put this context's limits into effect.

    They take effect before the query locks its rows. They end with the transaction, as a pooler needs it.
    Cost: no statement of their own.
    """
    limits = current_limits()
    if limits is None or not dialect().has_timeouts:
        return {}
    calls = [_setting("lock_timeout", limits.lock_seconds)]
    if limits.idle_seconds is not None:
        calls.append(_setting("idle_in_transaction_session_timeout", limits.idle_seconds))
        # The server isn't idle while it has more to send than a frozen client takes
        calls.append(_setting("tcp_user_timeout", limits.idle_seconds))
    postgresql: Any = connection
    if postgresql.pg_version >= CHECKS_CLIENTS_SINCE:
        on_linux = "CASE WHEN strpos(version(), 'linux') > 0 THEN %(function)s(%(expressions)s) END"
        calls.append(_setting("client_connection_check_interval", CHECK_SECONDS, template=on_linux))
    return {"limits": Func(*calls, function="concat", output_field=TextField())}


def _setting(name: str, seconds: float, **options: Any) -> Func:
    milliseconds, until_the_end = Value(str(max(round(seconds * 1000), 1))), Value(True)
    setting = (Value(name), milliseconds, until_the_end)
    return Func(*setting, function="set_config", output_field=TextField(), **options)
