"""SQLite's abilities and forms, and the types that Python converts for it."""

from __future__ import annotations

import datetime
import json
import sqlite3
from collections.abc import Iterable
from typing import Any


class SQLite:
    """Dialect of SQLite."""

    has_one_writer = True
    runs_in_process = True
    ends_transactions_itself = True
    has_sqlstates = False
    tells_time = False
    has_timeouts = False
    has_advisory_locks = False
    has_sequences = False
    has_arrays = False
    reads_json = False
    returns_updated_rows = False
    marks_written_rows = False
    checks_constraints_early = False
    searches_prefixes = False
    builds_indexes_concurrently = False
    stores_text = True
    id_list = "IN (SELECT value FROM json_each(%s))"
    elements = "json_each"
    is_same = "IS"
    like_escape = r" ESCAPE '\'"

    def ids(self, ids: Iterable[str]) -> str:
        return json.dumps(list(ids))

    def hex_digits(self, column: str) -> str:
        return column

    def byte_length(self, column: str) -> str:
        return f"length(CAST({column} AS BLOB))"


_PYTHONS_OWN = "sqlite3.dbapi2"
"""Module of the functions that are deprecated since Python 3.12."""


def convert_dates() -> None:
    """Have dates and times converted as Python's sqlite3 does by itself, by functions that aren't deprecated.

    Django does so since 4.2. These functions are the whole process's: where somebody else has registered one,
    it stays. Twice: safe.
    """
    known: Any = sqlite3  # the stubs lack its registries
    if _is_pythons_own(known.converters.get("DATE")):
        sqlite3.register_converter("date", _date)
    for kind, adapt in ((datetime.date, _text_of_date), (datetime.datetime, _text_of_time)):
        if _is_pythons_own(known.adapters.get((kind, sqlite3.PrepareProtocol))):
            sqlite3.register_adapter(kind, adapt)


def _is_pythons_own(function: Any) -> bool:
    return getattr(function, "__module__", None) == _PYTHONS_OWN


def _date(text: bytes) -> datetime.date:
    return datetime.date(*map(int, text.split(b"-")))


def _text_of_date(day: datetime.date) -> str:
    return day.isoformat()


def _text_of_time(moment: datetime.datetime) -> str:
    return moment.isoformat(" ")
