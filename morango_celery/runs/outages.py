"""Outages: whether an attempt was ended by the database's own trouble, or by what the attempt did.

PostgreSQL ends the session of a transaction that idles, or takes, longer than it is set to; and it restarts
as a whole when one of its processes crashes. A record may bring that about each time. Its client is told the
reason at best: libpq often says no more than that the connection was lost.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

from django.db import DatabaseError, InterfaceError, connection

from morango_celery.db.errors import may_be_the_records_fault, sqlstate
from morango_celery.printable import printable
from morango_celery.runs.limits import current_limits
from morango_celery.upstream import uses_postgresql

FORGIVEN_IN_A_ROW = 6
"""How many times a message is told that the connection was lost, for no known reason, until that counts."""

IDLE_TIMEOUT, TRANSACTION_TIMEOUT = "idle_in_transaction_session_timeout", "transaction_timeout"
_SQLSTATES = {IDLE_TIMEOUT: "25P03", TRANSACTION_TIMEOUT: "25P04"}
_ENDED = {
    IDLE_TIMEOUT: "the database ended the idle transaction",
    TRANSACTION_TIMEOUT: "the database ended the transaction, which took too long",
}
_CONNECTION_LOST = ("08", "57P02")

_TOLERANCE = 0.95
"""The server's clock began a little before ours."""


class Attempt:
    """One attempt's use of the database, watched from its beginning.

    Cost: a look at the time before and after each statement.
    """

    def __init__(self, retries: int) -> None:
        """
        :param retries: how often its message has been tried before, each time ended by the database
        """
        self._retries = retries
        self._began = self._last_said = time.monotonic()
        self._longest_pause = 0.0

    def __call__(self, execute: Callable[..., Any], sql: Any, params: Any, many: bool, context: Any) -> Any:
        """Execute a statement, as one of Django's ``execute_wrapper``."""
        self._longest_pause = max(self._longest_pause, time.monotonic() - self._last_said)
        try:
            return execute(sql, params, many, context)
        finally:
            self._last_said = time.monotonic()

    def reason_to_count(self, error: DatabaseError | InterfaceError) -> str:
        """Say what the attempt did to end like this; empty if it is an outage, and no attempt.

        :param error: a transient one
        :raises OperationalError, InterfaceError: the database isn't there
        Cost: one statement, if the connection was lost.
        """
        code = sqlstate(error)
        if may_be_the_records_fault(error):
            return f"the database said: {printable(str(error).strip())}"
        for setting, its_code in _SQLSTATES.items():
            if code == its_code:
                return _text(setting)
        if code is not None and not code.startswith(_CONNECTION_LOST):
            return ""
        for setting, seconds, limit_seconds in self._timed():
            if limit_seconds and seconds >= limit_seconds * _TOLERANCE:
                return _text(setting, f": {seconds:.1f} s, and {setting} is {limit_seconds:g} s")
        if self._retries >= FORGIVEN_IN_A_ROW:
            return f"the connection to the database was lost {self._retries + 1} times in a row"
        return ""

    def _timed(self) -> list[tuple[str, float, float]]:
        """What may have been too long, in seconds, and how long it may be; 0 for as long as it likes."""
        if not uses_postgresql():
            return []
        took = {IDLE_TIMEOUT: self._longest_pause, TRANSACTION_TIMEOUT: time.monotonic() - self._began}
        with connection.cursor() as cursor:
            cursor.execute(
                "SELECT name, setting::bigint / 1000.0 FROM pg_settings WHERE name = ANY(%s)", [[*took]]
            )
            allowed = {name: float(seconds) for name, seconds in cursor.fetchall()}
        limits = current_limits()
        if limits is not None and limits.idle_seconds:
            allowed[IDLE_TIMEOUT] = limits.idle_seconds
        return [(name, seconds, allowed.get(name, 0.0)) for name, seconds in took.items()]


def _text(setting: str, details: str = "") -> str:
    return f"{_ENDED[setting]} (SQLSTATE {_SQLSTATES[setting]}){details}"
