"""Calls of models' own code, and whose error it is when one raises."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext

from django.db import DatabaseError, InterfaceError, transaction

from morango_celery.deserialize import sql

_NOTHING = nullcontext()


class OwnCode:
    """How models' own ``deserialize()`` and ``clean_fields()`` are called in one batch.

    On PostgreSQL a query that fails there spoils the whole transaction, unless a savepoint is set before
    each call. That costs two statements a record and is hardly ever needed: so a batch is done without
    first, and again, carefully, if such an error comes out of it.
    """

    def __init__(self, *, carefully: bool = False) -> None:
        self.carefully = carefully

    def called(self) -> AbstractContextManager[None]:
        """Around each call. Cost: nothing, or a savepoint."""
        if not self.carefully:
            return _NOTHING
        savepoint: AbstractContextManager[None] = transaction.atomic()
        return savepoint

    def is_records_fault(self, error: Exception) -> bool:
        """Whether what a call raised is the record's error; if not, it has to be raised again."""
        if isinstance(error, DatabaseError | InterfaceError):
            return self.carefully and not sql.is_transient(error)
        return not isinstance(error, MemoryError)
