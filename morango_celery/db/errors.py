"""Kinds of database errors: who or what is to blame, and what to do about it."""

from __future__ import annotations

import sqlite3

from django.db import DatabaseError, InterfaceError, OperationalError

from morango_celery.upstream import uses_postgresql

_TRANSIENT_CLASSES = ("08", "40", "53", "57")
_TRANSIENT_CODES = ("55P03", "25006")
"""Locked; read-only, as a server is that others have replaced, or are about to."""
_QUERY_CANCELED = "57014"
_OUT_OF_MEMORY = "53200"
_TRANSIENT_ON_SQLITE = {
    sqlite3.SQLITE_BUSY,
    sqlite3.SQLITE_LOCKED,
    sqlite3.SQLITE_PROTOCOL,
    sqlite3.SQLITE_NOMEM,
    sqlite3.SQLITE_INTERRUPT,
    sqlite3.SQLITE_IOERR,
    sqlite3.SQLITE_FULL,
}
"""Locked, or an end of what this machine has; the latter end the transaction too."""


def is_transient(error: DatabaseError | InterfaceError) -> bool:
    """Return True if the database, not the record, is the cause: the same statement may succeed later.

    Tells by the SQLSTATE class (connection, rollback, resources, operator intervention) or SQLite's code.
    """
    if isinstance(error, InterfaceError):
        return True
    code: str | None = getattr(error.__cause__, "pgcode", None)
    if code is not None:
        return code.startswith(_TRANSIENT_CLASSES) or code in _TRANSIENT_CODES
    if not isinstance(error, OperationalError):
        return False
    return uses_postgresql() or _code_of_sqlite(error) in _TRANSIENT_ON_SQLITE


def may_be_the_records_fault(error: DatabaseError | InterfaceError) -> bool:
    """Return True if what a transient error is about may well be asked for by one record, and so come again.

    So it is for a statement that was cancelled (by a timeout, most likely), or took too much of the server's
    memory.
    """
    return getattr(error.__cause__, "pgcode", None) in (_QUERY_CANCELED, _OUT_OF_MEMORY)


def _code_of_sqlite(error: DatabaseError) -> int | None:
    code: int | None = getattr(error.__cause__, "sqlite_errorcode", None)
    return None if code is None else code & 0xFF  # the rest of it says more of the same
