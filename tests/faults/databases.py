"""Databases of a PostgreSQL that may fail, and ways to make their users feel it."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any
from urllib.parse import urlsplit

import psycopg2
from django.db import connection

from tests.faults.servers import Server
from tests.support.waiting import until

WAITS_FOR_A_LOCK = "wait_event_type = 'Lock'"
IDLE = "state = 'idle'"

_GATE = "62, 1"
"""The key of the advisory lock that `Database.holding_up` holds."""

IS_HELD_UP = (
    "pid IN (SELECT pid FROM pg_locks"
    f" WHERE NOT granted AND locktype = 'advisory' AND (classid, objid, objsubid) = ({_GATE}, 2))"
)

_OURS = "test"
"""The application name of this process's sessions."""


class Database:
    """A database, seen from outside of its users."""

    def __init__(self, server: Server, name: str) -> None:
        self.server = server
        self.name = name
        self.url = urlsplit(server.url)._replace(path=f"/{name}").geturl()

    @contextlib.contextmanager
    def session(self) -> Iterator[Any]:
        """Yield a cursor in a transaction of another session, which is rolled back at the end."""
        with contextlib.closing(psycopg2.connect(self.url, application_name=_OURS)) as session:
            yield session.cursor()

    def ask(self, sql: str, *parameters: Any) -> list[tuple[Any, ...]]:
        """Execute one statement, outside of a transaction."""
        with self.session() as cursor:
            cursor.connection.autocommit = True
            cursor.execute(sql, parameters)
            return list(cursor.fetchall()) if cursor.description else []

    def configure(self, setting: str, value: str) -> None:
        """Configure sessions that begin from now on."""
        self.ask(f"ALTER DATABASE {self.name} SET {setting} = %s", value)

    def workers(self, condition: str = "true") -> list[int]:
        """Return the process ids of the other sessions that fulfil a condition."""
        found = self.ask(
            "SELECT pid FROM pg_stat_activity WHERE datname = current_database()"
            f" AND application_name <> '{_OURS}' AND {condition}"
        )
        return [pid for (pid,) in found]

    def cut(self, condition: str = "true") -> int:
        """Terminate sessions of workers. Returns when they are gone.

        :returns: how many there were
        """
        pids = self.workers(condition)
        cut: int = sum(ended for pid in pids for (ended,) in self.ask("SELECT pg_terminate_backend(%s)", pid))
        until(lambda: not {*pids} & {*self.workers()}, "gone")
        return cut

    def has_room(self) -> bool:
        """Return True if the server takes one more connection."""
        try:
            with self.session():
                return True
        except psycopg2.OperationalError as error:
            if "too many clients" not in str(error):
                raise
            return False

    @contextlib.contextmanager
    def holding_up(self, moment: str) -> Iterator[None]:
        """Hold up sessions that reach a moment, until the context or the server ends.

        :param moment: the moment of a trigger, such as ``BEFORE INSERT ON table FOR EACH ROW``
        """
        self.ask(
            "CREATE OR REPLACE FUNCTION hold_up() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN"
            f" PERFORM pg_advisory_lock_shared({_GATE}); PERFORM pg_advisory_unlock_shared({_GATE});"
            " RETURN NEW; END'"
        )
        self.ask(f"CREATE TRIGGER hold_up {moment} EXECUTE FUNCTION hold_up()")
        with self.session() as gate:  # its trigger stays: to drop it would be to wait for who is at the table
            gate.execute(f"SELECT pg_advisory_lock({_GATE})")
            yield

    def forget_moments(self) -> None:
        self.ask("DROP FUNCTION hold_up CASCADE")

    @contextlib.contextmanager
    def used_here(self) -> Iterator[None]:
        """Django's connection of this process leads here."""
        settings = connection.settings_dict
        before = dict(settings)
        parts = urlsplit(self.url)
        connection.close()
        settings.update(
            NAME=self.name,
            HOST=parts.hostname,
            PORT=str(parts.port),
            USER=parts.username,
            PASSWORD="",
            OPTIONS={"application_name": _OURS},
        )
        try:
            yield
        finally:
            connection.close()
            settings.update(before)
