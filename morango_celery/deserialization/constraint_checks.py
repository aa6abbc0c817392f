"""Checks of foreign keys within a transaction, where the record that breaks one can still be found."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from django.db import IntegrityError, connection

from morango_celery.db.dialect import dialect
from morango_celery.deserialization.identifiers import quoted


def check_constraints() -> None:
    """Let deferred foreign keys fail now, where the culprit can be found, instead of at COMMIT.

    On SQLite there is no such statement that costs less than reading whole tables; foreign keys
    have been looked up by then, and `strict_check` is there for the rest.

    Cost: one round trip.

    :raises IntegrityError: a reference points nowhere
    """
    if dialect().checks_constraints_early:
        with connection.cursor() as cursor:
            cursor.execute("SET CONSTRAINTS ALL IMMEDIATE; SET CONSTRAINTS ALL DEFERRED")


def strict_check() -> Callable[[], None]:
    """Return a `check_constraints` that works on SQLite too, by reading every table with a foreign key.

    References that point nowhere already are nobody's fault, and not reported.
    """
    if dialect().checks_constraints_early:
        return check_constraints
    before = _dangling_references()

    def check() -> None:
        for table, row, target, key in sorted(_dangling_references() - before):
            column, value = _reference(table, row, key)
            raise IntegrityError(f"{table}.{column} refers to {value!r}, which {target} doesn't have.")

    return check


def _reference(table: str, row: int, key: int) -> tuple[str, Any]:
    """Column and value of a foreign key, by the numbers that SQLite's check has for row and key."""
    with connection.cursor() as cursor:
        keys = cursor.execute("SELECT * FROM pragma_foreign_key_list(%s)", [table]).fetchall()
        column = next(found[3] for found in keys if found[0] == key)
        (value,) = cursor.execute(
            f"SELECT {quoted(column)} FROM {quoted(table)} WHERE rowid = %s", [row]
        ).fetchone()
    return column, value


def _dangling_references() -> set[tuple[str, int, str, int]]:
    with connection.cursor() as cursor:
        return set(cursor.execute("PRAGMA foreign_key_check").fetchall())
