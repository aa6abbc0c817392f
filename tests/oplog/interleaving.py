"""Two transactions in sessions of their own, in every order of their steps.

A transaction stops before chosen statements and before its COMMIT; a schedule says which of the two goes on.
Nothing is timed: a step has ended when its transaction has stopped again, has ended, or waits for a lock that
the other one holds.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import nullcontext
from typing import Any

from django.db import connection, transaction
from typing_extensions import override

from tests.support.processes import PATIENCE_SECONDS

Work = Callable[[], Any]
Stops = Callable[[str, str], bool]
"""True stops between two statements of a transaction."""
Trace = list[tuple[int, list[int]]]
"""The transaction that took each step, and those that could have."""


def before_reading_or_deleting(last: str, sql: str) -> bool:
    """Stop where another transaction may come in between: before written rows are read or deleted."""
    wrote = last.startswith(("INSERT", "UPDATE", "DELETE"))
    return sql.startswith("DELETE") or (wrote and sql.startswith("SELECT"))


def before_every_statement(last: str, sql: str) -> bool:
    return bool(last)


class Session(threading.Thread):
    """One transaction, which takes a step each time that it is told to."""

    def __init__(self, work: Work, stops: Stops, atomic: bool) -> None:
        super().__init__(daemon=True)
        self.work, self.stops, self.atomic = work, stops, atomic
        self.error: Exception | None = None
        self.is_over = False
        self.pid = 0
        self._last = ""
        self._may_go_on, self._stands = threading.Semaphore(0), threading.Event()
        self.start()

    @override
    def run(self) -> None:
        try:
            with connection.cursor() as cursor:
                cursor.execute("SET deadlock_timeout = '20ms'")
            self.pid = connection.connection.info.backend_pid
            self._pause()
            in_transaction: Any = transaction.atomic() if self.atomic else nullcontext()
            with in_transaction, connection.execute_wrapper(self._watch):
                self.work()
                self._pause()
        except Exception as error:  # any error of the database or of Django about a change
            self.error = error
        finally:
            connection.close()
            self.is_over = True
            self._stands.set()

    def _watch(self, execute: Any, sql: str, *arguments: Any) -> Any:
        if not sql.startswith(("SAVEPOINT", "RELEASE")):
            if self.stops(self._last, sql):
                self._pause()
            self._last = sql
        return execute(sql, *arguments)

    def _pause(self) -> None:
        self._stands.set()
        assert self._may_go_on.acquire(timeout=PATIENCE_SECONDS), "nobody drives this session"

    def step(self) -> None:
        self._stands.clear()
        self._may_go_on.release()

    @property
    def can_step(self) -> bool:
        return self._stands.is_set() and not self.is_over

    def wait(self) -> None:
        """Until it stands, or waits for a lock."""
        for _ in range(PATIENCE_SECONDS * 1000):
            if self._stands.wait(0.001) or self._is_blocked():
                return
        raise AssertionError("neither stands nor waits for a lock")

    def _is_blocked(self) -> bool:
        with connection.cursor() as cursor:
            cursor.execute("SELECT cardinality(pg_blocking_pids(%s)) > 0", [self.pid])
            (blocked,) = cursor.fetchone()
        return bool(blocked)


def drive(
    works: Sequence[Work], stops: Stops, beginning: Sequence[int], atomic: bool
) -> tuple[Trace, list[Session]]:
    """Carry out the transactions: steps as given, and then those of the first that can go on."""
    sessions = [Session(work, stops, atomic) for work in works]
    trace: Trace = []
    while True:
        for session in sessions:
            session.wait()
        able = [number for number, session in enumerate(sessions) if session.can_step]
        if not able:
            if all(session.is_over for session in sessions):
                break
            continue  # each waits for the other: the database ends one of them
        given = beginning[len(trace)] if len(trace) < len(beginning) else able[0]
        chosen = given if given in able else able[0]
        trace.append((chosen, able))
        sessions[chosen].step()
    for session in sessions:
        session.join()
    return trace, sessions


def interleavings(
    works: Sequence[Work], stops: Stops, prepare: Callable[[], Any], atomic: bool = True
) -> Iterator[tuple[list[int], list[Session]]]:
    """Carry out the transactions in every order of their steps, each time after `prepare`.

    :param atomic: False for changes outside of any transaction of their own
    """
    beginning: list[int] = []
    while True:
        prepare()
        trace, sessions = drive(works, stops, beginning, atomic)
        yield [chosen for chosen, _ in trace], sessions
        while trace and trace[-1][0] == trace[-1][1][-1]:
            trace.pop()
        if not trace:
            return
        *before, (chosen, able) = trace
        beginning = [*(step for step, _ in before), able[able.index(chosen) + 1]]
