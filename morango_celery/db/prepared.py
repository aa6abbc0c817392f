"""Queries of Django's that are compiled once per process: from then on only the values of their marks change.

Compiling takes Django longer than PostgreSQL takes to find a row by its key. So a query is built once, as any
other one is, from marks in place of values.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Mapping, Sequence
from functools import lru_cache, wraps
from operator import itemgetter
from typing import Any

from django.db import connection
from django.db.models import Model, QuerySet
from django.db.models.expressions import RawSQL

from morango_celery.db.dialect import dialect
from morango_celery.django_compat import column_converters, insert_sql, select_sql, update_sql

MAX_STATEMENTS = 100
"""Most variants of one query that a process keeps."""

_FIRST_NUMBER = -2_147_000_000
_TEXT = "\x01mark"  # one word, as a prefix of a filter has to be
_DIGITS = 5


def number(place: int) -> int:
    """Return the mark of a whole number. It has 32 bits, and no column of a ledger is that low."""
    return _FIRST_NUMBER + place


def text(place: int) -> str:
    """Return the mark of a text: to be compared for equality, or with the beginning of another.

    Marks of texts are in the order of their places, and none is within another.
    """
    return f"{_TEXT}{place:0{_DIGITS}}"


def anything(place: int) -> Any:
    """Return the mark of a value of any type, in the form that the database takes, that is to be written."""
    return RawSQL("%s", [number(place)])


def kept(make: Callable[..., Any]) -> Callable[..., Any]:
    """Keep a function's statements by its arguments; but not on SQLite, where the time is a value.

    :param make: returns a statement. All that differs between two calls is among its arguments, or a mark
    """
    keep = lru_cache(maxsize=MAX_STATEMENTS)(make)

    @wraps(make)
    def made(*arguments: Hashable) -> Any:
        return keep(*arguments) if dialect().tells_time else make(*arguments)

    return made


class Statement:
    """Compiled statement."""

    def __init__(self, sql: str, parameters: Sequence[Any]) -> None:
        self.sql = sql
        self._parameters = parameters
        marks = enumerate(map(_mark, parameters))
        self._places = [(place, *mark) for place, mark in marks if mark is not None]

    def execute(self, *values: Any) -> int:
        """Execute it with the values of its marks. Returns the number of rows that it found."""
        with connection.cursor() as cursor:
            cursor.execute(self.sql, self._with(values))
            found: int = cursor.rowcount
        return found

    def row(self, *values: Any) -> tuple[Any, ...] | None:
        """Execute it likewise. Returns the first row that it returns."""
        with connection.cursor() as cursor:
            cursor.execute(self.sql, self._with(values))
            row: tuple[Any, ...] | None = cursor.fetchone()
        return row

    def rows(self, columns: Sequence[str], *values: Any) -> list[tuple[Any, ...]]:
        """Execute it likewise. Returns all rows, as the database has them.

        :param columns: names of two or more, in the order to return them: versions of Django select them in
            different ones
        """
        with connection.cursor() as cursor:
            cursor.execute(self.sql, self._with(values))
            names = [column[0] for column in cursor.description]
            return list(map(itemgetter(*map(names.index, columns)), cursor.fetchall()))

    def _with(self, values: Sequence[Any]) -> list[Any]:
        parameters = list(self._parameters)
        for place, mark, rest in self._places:
            parameters[place] = (
                f"{connection.ops.prep_for_like_query(values[mark])}{rest}" if rest else values[mark]
            )
        return parameters


def _mark(parameter: Any) -> tuple[int, str] | None:
    """Return a mark's place, and the text that a lookup has put behind it: "%", if it is one for
    beginnings."""
    # Django gives whole numbers a type of psycopg 3's
    if isinstance(parameter, int) and _FIRST_NUMBER <= parameter < _FIRST_NUMBER + MAX_STATEMENTS:
        return parameter - _FIRST_NUMBER, ""
    if isinstance(parameter, str) and parameter.startswith(_TEXT):
        found = parameter.removeprefix(_TEXT)
        return int(found[:_DIGITS]), found[_DIGITS:]
    return None


def selecting(rows: QuerySet[Any]) -> Statement:
    """Compile the statement that reads rows. One that locks them is compiled in a transaction."""
    return Statement(*select_sql(rows))


def updating(rows: QuerySet[Any], columns: Mapping[str, Any], returned: Sequence[str] = ()) -> Statement:
    """Compile the statement that updates rows, as `QuerySet.update` does.

    :param returned: attnames of columns to return; on PostgreSQL only
    """
    sql, parameters = update_sql(rows, columns)
    if returned:
        names = (connection.ops.quote_name(rows.model._meta.get_field(name).column) for name in returned)
        sql = f"{sql} RETURNING {', '.join(names)}"
    return Statement(sql, parameters)


def inserting(row: Model) -> Statement:
    """Compile the statement that inserts a row as an instance has it, and returns its key; on PostgreSQL."""
    key: Any = row._meta.pk
    sql, parameters = insert_sql(row, [field for field in concrete_fields(type(row)) if field is not key])
    return Statement(f"{sql} RETURNING {connection.ops.quote_name(key.column)}", parameters)


class Columns:
    """Columns of a model, in the order in which statements return them."""

    def __init__(self, model: type[Model], without: Sequence[str] = (), only: Sequence[str] = ()) -> None:
        """
        :param only: attnames, if not all but `without`
        """
        fields = [
            field
            for field in concrete_fields(model)
            if field.attname not in without and (not only or field.attname in only)
        ]
        self.model = model
        self.names = [field.attname for field in fields]
        self._converters = column_converters(fields)

    def instance(self, values: Sequence[Any]) -> Any:
        """Return an instance, as a query of Django's makes it. Columns that are left out are read when asked
        for."""
        made = list(values)
        for place, convert, expression in self._converters:
            made[place] = convert(made[place], expression, connection)
        return self.model.from_db(connection.alias, self.names, made)


def concrete_fields(model: type[Model]) -> Sequence[Any]:
    """Return the fields of a model that its table has columns of."""
    fields: Sequence[Any] = model._meta.concrete_fields  # type: ignore[attr-defined]  # Django's
    return fields
