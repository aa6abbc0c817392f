"""Further columns of Store, as a release of Morango to come may have them: in the table, and in the model."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from django.db import connection
from django.db.models import CharField, Field, IntegerField
from morango.models.core import Store

RANK, MARK = "further_rank", "further mark"
"""Columns of the fields ``further_rank`` and ``further_mark``."""

DEFAULT = "model's\tdefault\\"


@contextmanager
def further_columns() -> Iterator[None]:
    """Add a nullable column and one with a default, and take them away at the end.

    The database has another default for the latter, and a third column that the model knows nothing of.
    """
    fields: dict[str, Field[Any, Any]] = {
        "further_rank": IntegerField(null=True),
        "further_mark": CharField(max_length=40, default=DEFAULT, db_column=MARK),
    }
    columns = {
        RANK: "integer NULL",
        MARK: "varchar(40) DEFAULT 'database' NOT NULL",
        "further_unknown": "integer DEFAULT 5 NOT NULL",
    }
    for name, definition in columns.items():
        _alter(f'ADD COLUMN "{name}" {definition}')
    for name, field in fields.items():
        field.contribute_to_class(Store, name)
    try:
        yield
    finally:
        for name, field in fields.items():
            Store._meta.local_fields.remove(field)
            delattr(Store, name)
        Store._meta._expire_cache()
        for name in columns:
            _alter(f'DROP COLUMN "{name}"')


def _alter(change: str) -> None:
    with connection.cursor() as cursor:
        cursor.execute(f"ALTER TABLE {Store._meta.db_table} {change}")
