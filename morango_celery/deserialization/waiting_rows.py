"""Rows of a group that wait for their upsert, or for code of a model that might look at them."""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from typing import Any

from morango.models.core import SyncableModel

from morango_celery.deserialization import app_rows
from morango_celery.deserialization.code_edits import current
from morango_celery.deserialization.model_code import mentions, verb
from morango_celery.deserialization.rows import STORE_COLUMNS
from morango_celery.deserialization.traits import tables_of, traits_of

Rows = dict[str, Sequence[Any] | None]
"""Rows of one model by primary key, the last of two with the same; None for those in the Store."""


class NotWrittenError(BaseException):
    """Refusal of rows by the database while code of another record's model was running.

    Beside `Exception`, so that this code doesn't take it for its own.
    """

    def __init__(self, error: Exception) -> None:
        super().__init__(str(error))
        self.error = error


class WaitingRows:
    """Rows of a group by model, in the order in which they came. One upsert writes the rows of a model.

    A statement of a model's own code that names one of their tables has them written first. So it sees all
    records before its own, as in Morango, which saves one after another; and code that looks at nothing
    costs nothing.
    """

    def __init__(self, upserted: Callable[[type[SyncableModel], Collection[str]], None]) -> None:
        """
        :param upserted: told the model and the ids of each statement that has written all of its rows
        """
        self._upserted = upserted
        self._rows: dict[type[SyncableModel], Rows] = {}
        self.skipped_ids: set[str] = set()
        """The ids of rows that were left alone because of a local edit."""

    def of(self, model: type[SyncableModel]) -> Rows:
        """Return the rows of a model that wait, to put others in."""
        return self._rows.setdefault(model, {})

    def write(self) -> None:
        """Write all waiting rows.

        :raises DatabaseError: at least one row can't be written
        Cost: one statement per model, two where rows of both kinds wait.
        """
        waiting, self._rows = self._rows, {}
        for model, rows in waiting.items():
            skipped_ids = self._upsert(model, rows)
            if skipped_ids and (by_code := current().made_by_code(model, skipped_ids)):
                app_rows.mark_clean(model, by_code)
                self._upsert(model, {key: rows[key] for key in by_code})
                skipped_ids -= by_code
            self.skipped_ids |= skipped_ids

    def before_statement(self, statement: str) -> None:
        """Write all waiting rows, if a statement of a model's own code may see them, or undo them with its
        own.

        :raises NotWrittenError: the database refuses a row
        """
        if not self._rows:
            return
        kind = verb(statement)
        if kind == "ROLLBACK":  # to a savepoint, before which all others were written
            self._rows.clear()
        elif kind == "SAVEPOINT" or any(mentions(statement, tables_of(model)) for model in self._rows):
            try:
                self.write()
            except Exception as error:  # raised again, and told from errors of the query to come
                raise NotWrittenError(error) from error

    def _upsert(self, model: type[SyncableModel], rows: Rows) -> set[str]:
        """Upsert rows of one model.

        :returns: the ids of rows that were skipped because of a local edit
        """
        skipped_ids: set[str] = set()
        fields = traits_of(model).fields
        if stored := [key for key, values in rows.items() if values is None]:
            written = app_rows.upsert_stored(model, fields, STORE_COLUMNS, stored)
            skipped_ids |= self._skipped_ids(model, stored, written)
        if others := {key: values for key, values in rows.items() if values is not None}:
            written = app_rows.upsert(model, fields, list(others.values()))
            skipped_ids |= self._skipped_ids(model, others, written)
        return skipped_ids

    def _skipped_ids(self, model: type[SyncableModel], ids: Collection[str], written: int) -> set[str]:
        if written == len(ids):
            self._upserted(model, ids)
            return set()
        return app_rows.edited(model, ids)
