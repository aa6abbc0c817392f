"""Differences between the databases, behind one object for each.

Code asks the dialect for an ability by name, never for the product: so the reason for each fork stands where
it is taken.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Protocol

from django.db import DEFAULT_DB_ALIAS, connections

from morango_celery.db.postgresql import PostgreSQL
from morango_celery.db.sqlite import SQLite


class Dialect(Protocol):
    """Abilities of a database, and its forms of what others write in another way."""

    @property
    def has_one_writer(self) -> bool:
        """True if only one transaction writes at a time; else rows are locked one by one."""

    @property
    def runs_in_process(self) -> bool:
        """True if rows are read in this process, one by one; else they come from a server."""

    @property
    def ends_transactions_itself(self) -> bool:
        """True if some errors roll the whole transaction back, unseen by Django."""

    @property
    def has_sqlstates(self) -> bool:
        """True if an OperationalError without an SQLSTATE is about the connection."""

    @property
    def tells_time(self) -> bool:
        """True if the time of a statement is an expression; else it is one of its values."""

    @property
    def has_timeouts(self) -> bool:
        """True if statements, waits for locks, and idle transactions can be limited."""

    @property
    def has_advisory_locks(self) -> bool:
        """True if a transaction can lock a number."""

    @property
    def has_sequences(self) -> bool:
        """True if numbers of new rows come from sequences, whatever numbers other rows brought along."""

    @property
    def has_arrays(self) -> bool:
        """True if many rows travel as one parameter, of arrays, of JSON or by COPY."""

    @property
    def reads_json(self) -> bool:
        """True if JSON is read into columns as Python reads it. SQLite doesn't: its numbers differ."""

    @property
    def returns_updated_rows(self) -> bool:
        """True if UPDATE can return the rows that it has written."""

    @property
    def marks_written_rows(self) -> bool:
        """True if a row tells the transaction that wrote it."""

    @property
    def checks_constraints_early(self) -> bool:
        """True if deferred foreign keys can be checked before COMMIT, at a price that doesn't grow."""

    @property
    def searches_prefixes(self) -> bool:
        """True if an index finds the rows whose text begins with a prefix, in the order of bytes."""

    @property
    def builds_indexes_concurrently(self) -> bool:
        """True if others can write to a table while an index of it is created."""

    @property
    def stores_text(self) -> bool:
        """True if ids and times are stored as text."""

    @property
    def id_list(self) -> str:
        """Condition on a column of ids, after its name: one of those in a parameter made by `ids`."""

    @property
    def elements(self) -> str:
        """Function that returns the texts of a JSON list as rows, with the column ``value``."""

    @property
    def is_same(self) -> str:
        """Operator for equality that holds for two NULLs."""

    @property
    def like_escape(self) -> str:
        """Rest of a LIKE condition whose pattern escapes with a backslash."""

    def ids(self, ids: Iterable[str]) -> str:
        """Return the parameter for many ids of 32 hex digits."""

    def hex_digits(self, column: str) -> str:
        """Return the expression for an id of a column as 32 hex digits."""

    def byte_length(self, column: str) -> str:
        """Return the expression for the number of bytes of a text."""


_DIALECTS: dict[str, Dialect] = {"postgresql": PostgreSQL(), "sqlite": SQLite()}


def dialect(using: str = DEFAULT_DB_ALIAS) -> Dialect:
    """Return the dialect of a database.

    Morango knows one database, Django's default, and binds its own backend to that at import.

    :param using: alias of the database
    """
    return _DIALECTS[connections[using].vendor]
