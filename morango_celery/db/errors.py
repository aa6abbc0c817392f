"""Kinds of database errors: who is to blame, and how to go on."""

from __future__ import annotations

import sqlite3
from typing import Any

from django.db import DatabaseError, DataError, InterfaceError, OperationalError

from morango_celery.db.dialect import dialect
from morango_celery.db.driver import sqlstate_of

INFRASTRUCTURE_ERRORS = (DatabaseError, InterfaceError, MemoryError)
"""Errors that may be raised while a model's code runs, and that say more about this machine than about the
record."""

_TRANSIENT_CLASSES = ("08", "40", "53", "57")
_LOCK_NOT_AVAILABLE = "55P03"
_TRANSIENT_CODES = (_LOCK_NOT_AVAILABLE, "25006", "25P03", "25P04")
"""Locked; read-only, as a server is that others have replaced, or are about to; a transaction that idled, or
took, too long."""
_CANCELLED = "57014"
_ASKED_TOO_MUCH = (_CANCELLED, "53200", "53400")
"""Cancelled, by a timeout most likely; no memory left; more than anybody may have, as of temporary files."""
_NO_PERMISSION = "42501"
_REFUSED_CLASSES = ("3F", "42")
_BY_POLICY = "ExecWithCheckOptions"
"""Code of PostgreSQL's error for a row that a policy forbids."""
_REFUSED_ON_SQLITE = {
    sqlite3.SQLITE_PERM,
    sqlite3.SQLITE_READONLY,
    sqlite3.SQLITE_CORRUPT,
    sqlite3.SQLITE_CANTOPEN,
    sqlite3.SQLITE_AUTH,
    sqlite3.SQLITE_NOTADB,
}
_REMEDIES = {
    "25006": "The server is read-only, as a standby is: point DATABASES in the settings at the one that is "
    "written to.",
    "25P03": "The transaction stood still for longer than idle_in_transaction_session_timeout. Try again, or "
    "allow more.",
    "25P04": "The transaction took longer than transaction_timeout. Try again, or allow more.",
    "40001": "Another transaction changed the same rows. Try again.",
    "40P01": "It and other transactions waited for each other's locks. Try again.",
    "53100": "The server's disk is full. Make room on it, then try again.",
    "53200": "The server has no memory left. Try again when less is done on it, or give it more.",
    "53300": "The server takes no more connections. Close some, or raise max_connections, then try again.",
    _LOCK_NOT_AVAILABLE: "Other transactions held a lock that it needs for longer than lock_timeout. Try "
    "again at a quieter time, or allow more.",
    _CANCELLED: "It was cancelled, or took longer than statement_timeout. Try again, or allow more.",
}
"""General remedies for errors, by PostgreSQL's code."""
_LACKING = ("no such table", "no such column", "no such function", "has no column named")
_TRANSIENT_ON_SQLITE = {
    sqlite3.SQLITE_BUSY,
    sqlite3.SQLITE_LOCKED,
    sqlite3.SQLITE_PROTOCOL,
    sqlite3.SQLITE_NOMEM,
    sqlite3.SQLITE_INTERRUPT,
    sqlite3.SQLITE_IOERR,
    sqlite3.SQLITE_FULL,
}
"""Codes for a lock, or for an end of this machine's resources; the latter end the transaction too."""


def is_transient(error: DatabaseError | InterfaceError) -> bool:
    """Return True if the database, not the record, is the cause: the same statement may succeed later.

    Tells by the SQLSTATE class (connection, rollback, resources, operator intervention) or SQLite's code.
    """
    if isinstance(error, InterfaceError):
        return True
    code = sqlstate(error)
    if code is not None:
        return code.startswith(_TRANSIENT_CLASSES) or code in _TRANSIENT_CODES
    if not isinstance(error, OperationalError):
        return False
    return dialect().has_sqlstates or _code_of_sqlite(error) in _TRANSIENT_ON_SQLITE


def is_unreadable(error: Exception) -> bool:
    """Return True if the database has sent a value that Python can't hold, such as a year beyond 9999.

    psycopg 3 has a `DataError` for that, without the code that each error of the server's has.
    """
    if isinstance(error, DataError):
        return dialect().has_sqlstates and sqlstate(error) is None
    return isinstance(error, ValueError | OverflowError)


def is_lock_timeout(error: DatabaseError) -> bool:
    """Return True if PostgreSQL has waited for a lock as long as it is set to; on SQLite never."""
    return sqlstate(error) == _LOCK_NOT_AVAILABLE


def is_cancelled(error: DatabaseError) -> bool:
    """Return True if PostgreSQL has cancelled a statement: for its time limit, or for somebody."""
    return sqlstate(error) == _CANCELLED


def is_infrastructure_error(error: Exception) -> bool:
    """Return True if the database or this machine fails, so that no record is to blame."""
    if isinstance(error, DatabaseError | InterfaceError):
        return is_transient(error)
    return isinstance(error, MemoryError)


def may_be_the_records_fault(error: DatabaseError | InterfaceError) -> bool:
    """Return True if a statement of a transient error asked too much of the server: of time, memory or disk.
    One record may do so, and do it again."""
    return sqlstate(error) in _ASKED_TOO_MUCH


def is_permission_denied(error: DatabaseError | InterfaceError) -> bool:
    """Return True if the database's user may not do this."""
    return sqlstate(error) == _NO_PERMISSION


def sqlstate(error: DatabaseError | InterfaceError) -> str | None:
    """Return PostgreSQL's code for an error; None when libpq knows none, as of a connection that was lost."""
    return sqlstate_of(error.__cause__)


def is_refusal(error: DatabaseError) -> bool:
    """Return True if the database refuses a statement for any values: a permission, table or column is
    missing.

    A policy or a trigger may refuse single rows with the same codes, which counts as those rows' fault.
    """
    code = sqlstate(error)
    if code is not None:
        return code.startswith(_REFUSED_CLASSES) and not _is_about_a_row(error.__cause__)
    return _code_of_sqlite(error) in _REFUSED_ON_SQLITE or _lacks(error)


def remedy(error: DatabaseError | InterfaceError) -> str:
    """Return an operator's remedy for an error of the database, in a sentence or two."""
    code = sqlstate(error) or ""
    on_sqlite = _code_of_sqlite(error)
    if code == _NO_PERMISSION:
        return (
            "The database's user may not do this: GRANT it SELECT, INSERT, UPDATE and DELETE on all tables "
            "of the project, USAGE on their sequences, and USAGE on their schema. Changes of tables are for "
            "their owner, the user that `manage.py migrate` runs as."
        )
    if code in _REMEDIES:
        return _REMEDIES[code]
    if code.startswith(_REFUSED_CLASSES) or _lacks(error):
        return (
            "The database lacks tables or columns of this version: run `manage.py migrate`. If they are "
            "there, its user doesn't see them: GRANT it USAGE on their schema."
        )
    if on_sqlite in (sqlite3.SQLITE_READONLY, sqlite3.SQLITE_PERM, sqlite3.SQLITE_CANTOPEN):
        return "Let this process write to the database's file, and to the folder that it is in."
    if on_sqlite in (sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB):
        return "The database's file is damaged, or is none: restore it from a backup."
    if on_sqlite == sqlite3.SQLITE_FULL:
        return "Nothing is half done. Make room on the disk, then try again."
    return (
        "The database is not available. Nothing is half done. See that it runs, that DATABASES in the "
        "settings points at it, and that it lets this user in; then try again."
    )


def _is_about_a_row(error: Any) -> bool:
    return error.diag.context is not None or error.diag.source_function == _BY_POLICY


def _lacks(error: BaseException) -> bool:
    """Return True if SQLite says that it doesn't know something; it has no code for that."""
    return _code_of_sqlite(error) == sqlite3.SQLITE_ERROR and any(said in str(error) for said in _LACKING)


def _code_of_sqlite(error: BaseException) -> int | None:
    code: int | None = getattr(error.__cause__, "sqlite_errorcode", None)
    return None if code is None else code & 0xFF  # the rest of it says more of the same
