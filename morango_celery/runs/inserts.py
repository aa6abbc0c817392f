"""Inserts of single rows, by statements that are compiled once per process."""

from __future__ import annotations

from itertools import count

from django.db import connection
from django.db.models import Model

from morango_celery import clock
from morango_celery.db.dialect import dialect
from morango_celery.db.prepared import Statement, anything, concrete_fields, inserting, kept


def insert(row: Model) -> None:
    """Insert a new row; on PostgreSQL without Django's compiler, and without its signals.

    A time that the database puts in is read when somebody asks for it.
    Cost: one statement.
    """
    if not dialect().tells_time:
        row.save(force_insert=True)
        for name, value in list(vars(row).items()):
            if hasattr(value, "resolve_expression"):
                delattr(row, name)
        return
    columns = vars(row)
    fields = [field for field in concrete_fields(type(row)) if not field.primary_key]
    seconds = {field.attname: clock.seconds_from_now(columns[field.attname]) for field in fields}
    values = (
        field.get_db_prep_save(columns[field.attname], connection)
        for field in fields
        if seconds[field.attname] is None
    )
    (row.pk,) = _inserting(type(row), tuple(seconds.items())).row(*values) or (None,)
    row._state.adding, row._state.db = False, connection.alias
    for name, later in seconds.items():
        if later is not None:
            delattr(row, name)


@kept
def _inserting(model: type[Model], columns: tuple[tuple[str, float | None], ...]) -> Statement:
    """Return the statement that inserts a row.

    :param columns: attnames, and for a time, how many seconds later than the statement it is
    """
    places = count()
    values = {name: anything(next(places)) if later is None else clock.now(later) for name, later in columns}
    return inserting(model(**values))
