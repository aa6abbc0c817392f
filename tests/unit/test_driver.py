"""Values and errors of PostgreSQL's drivers, as both give them."""

from __future__ import annotations

import datetime
import decimal
import ipaddress
import json
from typing import Any

import psycopg2.extras
import pytest

from morango_celery.db.driver import input_text, json_text, sqlstate_of


class Wrapped:
    """Stand-in for an object of psycopg 3's, which is installed beside Django 4.2 and later alone."""

    def __init__(self, obj: Any) -> None:
        self.obj = obj


class WrappedJson(Wrapped):
    """Stand-in for its JSON."""

    dumps: Any = None


class DjangosJson(psycopg2.extras.Json):
    """Stand-in for the class that Django 5.2 derives from psycopg2's."""


DjangosJson.__module__ = "django.db.backends.postgresql.psycopg_any"
Wrapped.__module__ = "psycopg.dbapi20"
WrappedJson.__module__ = "psycopg.types.json"


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (datetime.date(2026, 1, 2), "2026-01-02"),
        (datetime.timedelta(days=-1, seconds=2, microseconds=3), "-1 days 2 seconds 3 microseconds"),
        (decimal.Decimal("1.50"), "1.50"),
        (b"\x00\xff", r"\x00ff"),
        (memoryview(b"ab"), r"\x6162"),
        (psycopg2.Binary(b"ab"), r"\x6162"),
        (Wrapped(b"ab"), r"\x6162"),
        (psycopg2.extras.Inet("::1"), "::1"),
        (ipaddress.ip_address("10.0.0.1"), "10.0.0.1"),
        (psycopg2.extras.Json({"a": [1]}), '{"a": [1]}'),
        (DjangosJson({"a": [1]}), '{"a": [1]}'),
        (WrappedJson({"a": [1]}), '{"a": [1]}'),
    ],
    ids=repr,
)
def test_value_has_a_text_that_postgresql_reads(value: Any, text: str) -> None:
    assert input_text(value) == text


@pytest.mark.parametrize(
    "value", [object(), [1], psycopg2.extras.NumericRange(1, 2)], ids=["object", "list", "range"]
)
def test_value_without_such_a_text_is_refused(value: Any) -> None:
    with pytest.raises(TypeError, match="can't be written in bulk"):
        input_text(value)


def test_document_is_written_by_the_fields_own_encoder() -> None:
    wrapped = WrappedJson({1.5})
    wrapped.dumps = lambda value: json.dumps(sorted(value))

    assert json_text(wrapped) == "[1.5]"
    assert json_text(psycopg2.extras.Json({1.5}, dumps=wrapped.dumps)) == "[1.5]"
    assert json_text('{"a": 1}') == '{"a": 1}'  # as before Django 4.2
    assert json_text(None) is None


def test_sqlstate_is_found_by_the_name_that_either_driver_gives_it() -> None:
    class Psycopg3Error(Exception):
        sqlstate = "40P01"

    class Psycopg2Error(Exception):
        pgcode = "55P03"

    found = [sqlstate_of(error) for error in (Psycopg3Error(), Psycopg2Error(), ValueError(), None)]
    assert found == ["40P01", "55P03", None, None]
