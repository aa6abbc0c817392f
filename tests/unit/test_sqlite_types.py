"""Dates and times in SQLite: converted by functions that no version of Python deprecates."""

from __future__ import annotations

import datetime
import sqlite3
from collections.abc import Iterator
from contextlib import closing
from typing import Any

import pytest
from django.db import connection

from morango_celery.db.sqlite import convert_dates

DAY, MOMENT = datetime.date(2026, 1, 2), datetime.datetime(2026, 1, 2, 3, 4, 5, 678)  # noqa: DTZ001  (as stored)
KNOWN: Any = sqlite3
"""The module, with the registries that its stubs lack."""


def functions() -> list[Any]:
    adapters = [KNOWN.adapters[kind, sqlite3.PrepareProtocol] for kind in (datetime.date, datetime.datetime)]
    return [KNOWN.converters["DATE"], *adapters]


@pytest.fixture(autouse=True)
def _registries_as_before() -> Iterator[None]:
    converters, adapters = dict(KNOWN.converters), dict(KNOWN.adapters)
    yield
    KNOWN.converters.update(converters)
    KNOWN.adapters.update(adapters)


def test_functions_of_pythons_own_are_replaced_by_equal_ones() -> None:
    # Given functions as Python registers them
    def deprecated(*arguments: Any) -> Any:
        raise DeprecationWarning

    deprecated.__module__ = "sqlite3.dbapi2"
    sqlite3.register_converter("date", deprecated)
    for kind in (datetime.date, datetime.datetime):
        sqlite3.register_adapter(kind, deprecated)

    # When ours take their place
    convert_dates()

    # Then values make the way that they always made
    with closing(sqlite3.connect(":memory:", detect_types=sqlite3.PARSE_DECLTYPES)) as database:
        database.execute("CREATE TABLE t (day date, text text, moment text)")
        database.execute("INSERT INTO t VALUES (?, ?, ?)", [DAY, DAY, MOMENT])
        assert database.execute("SELECT * FROM t").fetchall() == [
            (DAY, "2026-01-02", "2026-01-02 03:04:05.000678")
        ]
        database.execute("UPDATE t SET day = 'no day'")
        with pytest.raises(ValueError, match="invalid literal"):
            database.execute("SELECT * FROM t").fetchall()


def test_functions_of_others_stay() -> None:
    sqlite3.register_converter("date", bytes.decode)
    sqlite3.register_adapter(datetime.date, str)

    convert_dates()

    assert functions()[:2] == [bytes.decode, str]


def test_no_function_is_pythons_own_where_sqlite_is_the_database() -> None:
    if connection.vendor == "sqlite":
        assert "sqlite3.dbapi2" not in {getattr(each, "__module__", None) for each in functions()}
