from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from django.core.management.base import CommandError, CommandParser
from django.db import DatabaseError, InterfaceError, connection
from typing_extensions import override

from morango_celery.db.dialect import dialect
from morango_celery.db.errors import remedy, sqlstate
from morango_celery.management.base import PipeSafeCommand
from morango_celery.management.results import VERSION, IndexesJson, add_json
from morango_celery.management.run_command import errors_in_one_line
from morango_celery.printable import printable, printable_lines
from morango_celery.reading.indexes import IndexState, building_session, states, sync_indexes

REMEDIES = {
    "42501": "Only the owner of a table may do this: use the database user that `manage.py migrate` runs as.",
    "42P07": "Somebody else creates it at this moment. Run the command again to see that it is done.",
}
"""Remedies for errors that mean more here than elsewhere, by PostgreSQL's code."""


class Command(PipeSafeCommand):
    help = (
        "Create the partial indexes by which a sync finds local edits, and what waits, without reading "
        "whole tables. Others go on writing meanwhile. Safe at any moment, and again: what is there is left "
        "alone, and what was left unfinished is made again."
    )
    _is_quiet = False

    @override
    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("--remove", action="store_true", help="remove them instead")
        add_json(parser)

    @override
    def handle(self, *args: Any, **options: Any) -> None:
        if connection.in_atomic_block:
            raise CommandError(
                "Indexes can't be made within a transaction without locking tables for as long as it takes. "
                "Call this command outside of one: not from a migration that is atomic."
            )
        with errors_in_one_line():
            found = states(sync_indexes())
        self._is_quiet = options["json"]
        change = self._remove if options["remove"] else self._create
        changed = [state.index.name for state in found if change(state)]
        if options["json"]:
            result: IndexesJson = {
                "version": VERSION,
                "created": [] if options["remove"] else changed,
                "removed": changed if options["remove"] else [],
                "indexes": len(found),
            }
            self.write_json(result)
            return
        self.stdout.write(f"{len(changed)} {'removed' if options['remove'] else 'created'}, of {len(found)}.")

    def _say(self, text: str, ending: str = "\n") -> None:
        if not self._is_quiet:
            self.stdout.write(text, ending=ending)
            self.stdout.flush()

    def _create(self, state: IndexState) -> bool:
        """Return True if there was something to do."""
        if not state.table_exists:
            raise CommandError(
                f"There is no table {_table(state)}. Run `manage.py migrate` first, then this command again."
            )
        if not state.is_plain_table:
            self._say(f"{_table(state)}: left out; it is no table of its own, but a view, or in parts.")
            return False
        if state.is_valid:
            self._say(f"{_table(state)}: {state.index.name} is there already.")
            return False
        if state.exists:
            self._drop(state, "was left unfinished, and is removed")
        self._carry_out(state, "is created", state.index.creation())
        return True

    def _remove(self, state: IndexState) -> bool:
        if state.exists:
            self._drop(state, "is removed")
        return state.exists

    def _drop(self, state: IndexState, what: str) -> None:
        with _errors_of(state):
            pid = (
                building_session(state)
                if dialect().builds_indexes_concurrently and not state.is_valid
                else None
            )
        if pid is not None:
            raise CommandError(
                f"{state.index.name} is being created at this moment, by the database session {pid}. Wait "
                "until it has ended (the view pg_stat_progress_create_index says how far it is), or end it "
                f"by `SELECT pg_terminate_backend({pid})`; then run this command again."
            )
        self._carry_out(state, what, state.removal())

    def _carry_out(self, state: IndexState, what: str, statement: str) -> None:
        self._say(f"{_table(state)}: {state.index.name} {what} ...", ending="")
        begun = time.monotonic()
        with _errors_of(state), connection.cursor() as cursor:
            cursor.execute(statement)
        self._say(f" {time.monotonic() - begun:.1f} s")


def _table(state: IndexState) -> str:
    return printable(state.index.table)


@contextmanager
def _errors_of(state: IndexState) -> Iterator[None]:
    """Raise errors of the database as errors of the command.

    :raises CommandError: in place of the database's error, with what to do about it
    """
    try:
        yield
    except (DatabaseError, InterfaceError) as error:
        what_to_do = REMEDIES.get(sqlstate(error) or "") or remedy(error)
        raise CommandError(
            f"{_table(state)}: {printable_lines(error)}\n{what_to_do} What is unfinished is made again then."
        ) from error
