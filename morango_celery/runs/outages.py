"""Outages: ends of attempts by the database's own trouble, told apart from ends that the attempt caused.

PostgreSQL ends the session of a transaction that idles or lasts too long by its settings. It restarts
as a whole when one of its processes crashes. A record may cause either each time. The client seldom hears
the reason: libpq often says only that the connection was lost.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

from django.db import DatabaseError, InterfaceError, connection

from morango_celery.db.dialect import dialect
from morango_celery.db.errors import may_be_the_records_fault, sqlstate
from morango_celery.printable import printable
from morango_celery.runs.limits import current_limits

UNCOUNTED_IN_A_ROW = 6
"""Number of connections in a row that one message may lose, for no known reason, before an attempt counts."""

IDLE_TIMEOUT, TRANSACTION_TIMEOUT = "idle_in_transaction_session_timeout", "transaction_timeout"
_SQLSTATES = {IDLE_TIMEOUT: "25P03", TRANSACTION_TIMEOUT: "25P04"}
_ENDED = {
    IDLE_TIMEOUT: "the database ended the idle transaction",
    TRANSACTION_TIMEOUT: "the database ended the transaction, which took too long",
}
_CONNECTION_LOST = ("08", "57P02")

_TOLERANCE = 0.95
"""Factor for limits of time: the server began to measure a little before this process."""


class DatabaseTimes:
    """One attempt's use of the database, measured from its beginning.

    Cost: a look at the time before and after each statement.
    """

    def __init__(self, retries: int) -> None:
        """Begin to measure.

        :param retries: number of earlier tries of the message, each of which the database ended
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
        """Return the reason why the attempt counts, as a text; empty if it ended by an outage.

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
        if self._retries >= UNCOUNTED_IN_A_ROW:
            return f"the connection to the database was lost {self._retries + 1} times in a row"
        return ""

    def _timed(self) -> list[tuple[str, float, float]]:
        """Return the setting of each time limit, the seconds that were taken, and the limit (0 for none)."""
        if not dialect().has_timeouts:
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
