"""Driver that Django talks to PostgreSQL by: psycopg2, or psycopg 3 where Django 4.2 or later finds it.

Code that differs by driver is here, and knows a driver by its objects: none is imported.
"""

from __future__ import annotations

import datetime
import decimal
import io
import ipaddress
import json
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from django.db import connection

_DRIVERS = ("psycopg2", "psycopg")
_WRAPPED = ("adapted", "obj", "addr")
"""Attributes of the drivers' objects that hold the value they were made for."""
_WRITTEN_AS_THEY_ARE = (decimal.Decimal, uuid.UUID, ipaddress.IPv4Address, ipaddress.IPv6Address)


def is_psycopg3() -> bool:
    """Return True if the default database is reached by psycopg 3."""
    return bool(_database().__name__ == "psycopg")


def _database() -> Any:
    """Return the driver's module, as Django has it."""
    found: Any = connection  # the stubs don't know it
    return found.Database


def sqlstate_of(error: BaseException | None) -> str | None:
    """Return the SQLSTATE of a driver's error; None for one without, and for SQLite's."""
    code: str | None = getattr(error, "sqlstate", None) or getattr(error, "pgcode", None)
    return code


def unwrapped(value: Any) -> Any:
    """Return the value that an object of the driver's stands for, such as bytes; others as they are."""
    # Django has classes of its own that are derived from the drivers', such as that of JSON for psycopg2
    if all(cls.__module__.partition(".")[0] not in _DRIVERS for cls in type(value).__mro__):
        return value
    return next((getattr(value, name) for name in _WRAPPED if hasattr(value, name)), value)


def input_text(value: Any) -> str:
    """Return a text that PostgreSQL's input functions read, of a value that JSON has no form of.

    :param value: as `Field.get_db_prep_save` makes them
    :raises TypeError: there is no such text
    """
    content = unwrapped(json_text(value))
    if isinstance(content, datetime.datetime | datetime.date | datetime.time):
        return content.isoformat()
    if isinstance(content, _WRITTEN_AS_THEY_ARE):
        return str(content)
    if isinstance(content, datetime.timedelta):
        return f"{content.days} days {content.seconds} seconds {content.microseconds} microseconds"
    if isinstance(content, bytes | bytearray | memoryview):
        return "\\x" + bytes(content).hex()
    if isinstance(content, str):
        return content
    raise TypeError(f"A value of type {type(content).__name__} can't be written in bulk.")


def json_text(value: Any) -> Any:
    """Return the text of a column of JSON, of a value that `Field.get_db_prep_save` has made.

    That is a text before Django 4.2, and an object of the driver's since. Others are returned as they are.
    """
    return (value.dumps or json.dumps)(unwrapped(value)) if hasattr(value, "dumps") else value


def copy_from(cursor: Any, statement: str, content: bytes) -> None:
    """Execute a ``COPY ... FROM STDIN``."""
    with connection.wrap_database_errors:  # which Django does for other statements
        if is_psycopg3():
            with cursor.copy(statement) as copy:
                copy.write(content)
        else:
            cursor.copy_expert(statement, io.BytesIO(content))


def skip_to_last_result(cursor: Any) -> None:
    """Have a cursor that has executed several statements at once return the rows of the last one.

    psycopg2 keeps those alone.
    """
    while is_psycopg3() and cursor.nextset():
        pass


@contextmanager
def repeatable_read() -> Iterator[None]:
    """Have a transaction that begins inside read in one view of the data. For psycopg 3.

    Cost: no statement; its ``BEGIN`` says so.
    """
    connection.ensure_connection()
    session: Any = connection.connection
    before = session.isolation_level
    session.isolation_level = _database().IsolationLevel.REPEATABLE_READ
    try:
        yield
    finally:
        if not session.closed:
            session.isolation_level = before
