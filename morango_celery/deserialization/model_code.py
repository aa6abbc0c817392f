"""Calls of models' own code, and the attribution of errors that they raise."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import Any

from django.db import DatabaseError, InterfaceError, transaction
from django.db.models import Model

from morango_celery.db.errors import is_transient
from morango_celery.deserialization.code_edits import current
from morango_celery.deserialization.issuer import MODELS_CODE, is_systemic


def verb(statement: str) -> str:
    """Return the first word of an SQL statement, in capitals."""
    return statement.split(maxsplit=1)[0].upper() if statement.strip() else ""


READING = {"SELECT", "SAVEPOINT", "RELEASE"}
"""Verbs of statements that change nothing."""


def updates(statement: str) -> bool:
    """Return True if an SQL statement may change rows that are there already."""
    first = verb(statement)
    return first in ("UPDATE", "MERGE") or (first == "INSERT" and "DO UPDATE" in statement.upper())


def mentions(statement: str, tables: Iterable[str]) -> bool:
    """Return True if an SQL statement may be about one of these tables: their names are in its text."""
    return any(table in statement for table in tables)


class UpdatesOtherRows(BaseException):
    """Interruption of a model's code that is about to update rows which another batch's code may have read.

    Beside `Exception`, so that this code doesn't take it for its own.
    """

    def __init__(self, model: type[Model], statement: str) -> None:
        super().__init__(model._meta.label)
        self.model = model
        self.statement = statement


class ModelCodeGuard:
    """Guard around the calls of models' own ``deserialize()`` and ``clean_fields()`` in one batch.

    On PostgreSQL a query that fails there spoils the whole transaction, unless a savepoint is set before
    each call. That costs two statements a record and is hardly ever needed: so a batch is done without
    first, and again, with savepoints, if such an error comes out of it.
    """

    def __init__(self, *, savepoints: bool = False, exclusively: bool = True) -> None:
        """
        :param exclusively: whether no other transaction runs code of models that updates other rows
        """
        self.savepoints = savepoints
        self.exclusively = exclusively
        self.writes = 0
        """Number of executed statements that may have changed something, this app's own included."""
        self._observer: Callable[[str], None] | None = None

    def called(self) -> AbstractContextManager[None]:
        """Around each call. Cost: nothing, or a savepoint."""
        if not self.savepoints:
            return MODELS_CODE
        return _with_savepoint()

    @contextmanager
    def observed_by(self, observer: Callable[[str], None]) -> Iterator[None]:
        """Tell `observer` each statement that code of a model is about to execute, inside.

        Its own statements are none of theirs. It may raise, and then the statement isn't executed.
        """
        self._observer = observer
        try:
            yield
        finally:
            self._observer = None

    def refuse_update(self, model: type[Model], statement: str) -> None:
        """Stop the ``save()`` of a model that is about to update other rows, unless no other one does.

        :raises UpdatesOtherRows: roll back, recognize the model, and begin again
        """
        if not self.exclusively and updates(statement):
            raise UpdatesOtherRows(model, statement)

    @contextmanager
    def unobserved(self) -> Iterator[None]:
        """Tell nobody of statements inside, for they are none of the code's."""
        observer, self._observer = self._observer, None
        try:
            yield
        finally:
            self._observer = observer

    def execute(
        self, execute: Callable[..., Any], statement: Any, parameters: Any, many: bool, context: Any
    ) -> Any:
        """Execute a statement of this app or of a model's code; for ``connection.execute_wrapper``."""
        if (observer := self._observer) is not None:
            with self.unobserved():
                observer(str(statement))
        if verb(str(statement)) not in READING:
            self.writes += 1
        return execute(statement, parameters, many, context)

    def is_records_fault(self, error: Exception) -> bool:
        """Return True if an error of a call is the record's. If not, it has to be raised again."""
        if isinstance(error, DatabaseError | InterfaceError):
            return self.savepoints and not is_transient(error) and not is_systemic(error)
        return not isinstance(error, MemoryError)


@contextmanager
def _with_savepoint() -> Iterator[None]:
    with current().undone_on_error(), transaction.atomic(), MODELS_CODE:
        yield
