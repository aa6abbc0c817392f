"""Columns of every type, with values that are right, wrong, or more than Morango can bear."""

from __future__ import annotations

import json
from typing import Any

import django
import pytest
from django.db import connection
from morango.models import Store
from morango.sync.operations import _deserialize_from_store as morangos

from morango_celery.db.driver import is_psycopg3
from tests.model_zoo.rows import build_zoo_row
from tests.parity.harness import assert_same, both
from tests.support.comparison import existing, run

NAN, INFINITY = float("nan"), float("inf")

VALID: dict[str, list[Any]] = {
    "words": ["", "one two", "  one\n two ", ["a", "b"]],
    "flag": [True, False, None, 0, 1, "t", "f", "True", "1", "", 1.0, 0.0, [], {}],
    "small": [0, -32768, 32767, "7", 1.0, 1.5, True, " 7 ", "\N{ARABIC-INDIC DIGIT SEVEN}"],
    "big": [2**63 - 1, -(2**63), "12", 1e18, True],
    "positive": [0, 2147483647, "5", 1.9],
    "price": [None, 0, 1, "1.50", 1.5, 999999.99, "999999.99", "-0", "1e3", True, "1_000"],
    "ratio": [0, 1.5, -1e308, 1e308, INFINITY, -INFINITY, "1.5", True, 10**20, 1e-320],
    "day": [None, "2026-02-28", "2026-2-3", "0001-01-01"],
    "hour": [None, "03:04", "03:04:05", "03:04:05.000006", "03:04:05Z", "3:4"],
    "moment": [
        None,
        "2026-01-02T03:04:05Z",
        "2026-01-02T03:04:05.006Z",
        "2026-01-02T03:04:05.000006Z",
        "2026-01-02T03:04:05+02:00",
        "2026-01-02T03:04:05.1234567Z",
        "0001-01-01T00:00:00Z",
        "9999-12-31T23:59:59.999999Z",
    ],
    "length": [None, "P1DT02H03M04S", "1 02:03:04", "00:00:01.5", "-P1DT00H00M00S", "-1 day"],
    "slug": ["", "a-b_c1", "x" * 50, 5, True, []],
    "mail": ["", "a@example.org"],
    "link": ["", "https://example.org/?a=b#c", "ftp://x.org"],
    "address": [None, "", "127.0.0.1", "::1", "::ffff:10.0.0.1", "2001:0DB8::0001", " 127.0.0.1 "],
    "other_id": [None, "ab" * 16, "AB" * 16],
    "data": [None, {}, [], {"a": [1, None, {"b": 1.5}]}, "text", "", 5, True, False, 10**30, "null"],
    "color": ["", "red", []],
    "secret": ["theirs"],
}

INVALID: dict[str, list[Any]] = {
    "words": [None, 5, {"a": 1}],
    "flag": [2, "maybe", "null"],
    "small": ["seven", None, "", NAN, [], {}],
    "big": [None, "", []],
    "positive": [-1, None],
    "price": ["1.005", 1.005, 0.1, 1000000, "NaN", NAN, "Infinity", "1e-3", "one", [], {}, "", 1e300, "sNaN"],
    "ratio": ["x", None, [], ""],
    "day": ["2026-02-30", "today", "", "2026-01-02T03:04:05Z", "10000-01-01"],
    "hour": ["25:00", "", "noon"],
    "moment": ["2026-02-30T00:00:00Z", "2026-01-02T24:00:00Z", "", "2026-01-02T03:04:05z"],
    "length": ["x", "P1W"],
    "slug": ["a b", "é", "x" * 51, None, "a\n"],
    "mail": ["a@", "a@b", "x" * 250 + "@example.org", None, 5],
    "link": ["example.org", "javascript:1", None, 5, "http://[::1", "http://" + "x" * 250 + ".org"],
    "address": ["256.0.0.1", "1.2.3", 5, "127.0.0.01", True],
    "other_id": ["", "short", "g" * 32, "ab" * 17, "abababab-abab-abab-abab-abababababab"],
    "color": [None, "blue", 5, "red ", "Red", "xxxxxx"],
    "secret": [None, "x" * 11, ""],
}

if django.VERSION < (4,):
    INVALID["day"].append("20260203")  # read as a date since

ABORTING: dict[str, list[Any]] = {
    "words": [[1, 2]],
    "small": [INFINITY],
    "ratio": [10**400],
    "day": [5, [], {}, True],
    "hour": [5, [], True],
    "moment": [5, [], True],
    "length": ["99999999999 00:00:00", "P1000000000DT00H00M00S", 5, "", [], True],
    "other_id": [5, [], {}, True],
}

ON_POSTGRESQL: dict[str, list[Any]] = {
    "data": [NAN, "\x00", "\ud800", {"a\x00": 1}],
}
ON_SQLITE: dict[str, list[Any]] = {
    "length": ["P999999999DT00H00M00S"],
    "moment": ["0001-01-01T00:00:00+14:00"],
}

if connection.vendor == "postgresql" and is_psycopg3():
    INVALID["address"].append([])  # refused by the driver, as no address
else:
    ON_POSTGRESQL["address"] = [[]]

BEYOND_SQLITE: dict[str, list[Any]] = {"small": [10**30], "big": [2**63, 1e30, 10**400]}
if django.VERSION < (5,):
    ON_SQLITE |= BEYOND_SQLITE
else:  # validated since
    INVALID |= {name: INVALID[name] + values for name, values in BEYOND_SQLITE.items()}


def samples(values: dict[str, list[Any]]) -> list[Store]:
    """Return a record for each value."""
    return [build_zoo_row("sample", **{name: value}) for name in values for value in values[name]]


def test_valid_values_are_saved() -> None:
    rows = samples(VALID)
    result = assert_same(rows)
    assert result.errors == {}
    assert len(result.app["sample"]) == len(rows)


def test_valid_values_overwrite_others() -> None:
    rows = samples(VALID)
    older: dict[str, Any] = {
        "slug": "old",
        "day": "2000-01-01",
        "data": [1],
        "words": ["old"],
        "other_id": "ef" * 16,
    }
    app = [existing(build_zoo_row("sample", id=row.id, source_id=row.source_id, **older)) for row in rows]
    assert_same(rows, app=app)


def test_invalid_values_are_their_records_error() -> None:
    rows = samples(INVALID)
    result = assert_same(rows)
    assert set(result.errors) == {row.id for row in rows}
    assert result.app["sample"] == []


def test_nan_is_saved_as_by_morango(batch_size: int) -> None:
    """A float may be NaN on PostgreSQL, where it is unequal to itself; on SQLite it is null."""
    rows = [build_zoo_row("sample", ratio=value) for value in (NAN, "nan")]
    theirs, ours = both(rows, batch_sizes=[batch_size])
    assert ours.errors == theirs.errors
    assert ours.dirty == theirs.dirty
    for database in (theirs, ours):
        assert all(row["ratio"] != row["ratio"] for row in database.app["sample"])
        assert len(database.app["sample"]) == (2 if connection.vendor == "postgresql" else 0)


@pytest.mark.parametrize(("name", "values"), [("small", [32768, -32769]), ("positive", [2147483648])])
def test_numbers_beyond_postgresqls_limits_fail_there_only(name: str, values: list[int]) -> None:
    result = assert_same(samples({name: values}))
    assert len(result.errors) == (len(values) if connection.vendor == "postgresql" else 0)


@pytest.mark.filterwarnings("ignore:DateTimeField Sample.moment received a naive:RuntimeWarning")
def test_times_without_a_zone_are_saved() -> None:
    rows = samples({"moment": ["2026-01-02T03:04:05", "2026-01-02", "2026-01-02 03:04"]})
    assert len(assert_same(rows).app["sample"]) == 3


def test_values_that_abort_morango_cost_only_their_record() -> None:
    rows = samples(ABORTING)
    rows += samples(ON_POSTGRESQL if connection.vendor == "postgresql" else ON_SQLITE)
    good = build_zoo_row("sample", slug="good")
    theirs, ours = both([*rows, good])
    assert theirs.aborted is not None
    assert (ours.aborted, ours.ids("sample")) == (None, {good.id})
    assert set(ours.errors) == {row.id for row in rows}
    for row in rows:
        assert run(morangos, [row]).aborted is not None, row.serialized


def test_json_that_postgresql_refuses_fails_there_only() -> None:
    rows = samples({"data": ["\x00", "\ud800", {"a\x00": 1}]})
    theirs, ours = both(rows)
    if connection.vendor == "sqlite":
        assert ours == theirs
        assert len(ours.app["sample"]) == 3
    else:
        assert (len(ours.errors), ours.app["sample"]) == (3, [])


@pytest.mark.parametrize("value", [None, "", "nonsense", "short"])
def test_own_id_in_another_form_is_treated_alike(value: object) -> None:
    row = build_zoo_row("sample")
    row.serialized = row.serialized.replace(json.dumps(row.id), json.dumps(value), 1)
    assert_same([row])


def test_field_that_is_not_serialized_is_taken_when_it_comes_and_has_its_default_when_not() -> None:
    given, missing = build_zoo_row("sample", secret="theirs"), build_zoo_row("sample")
    result = assert_same([given, missing])
    assert {row["id"]: row["secret"] for row in result.app["sample"]} == {
        given.id: "theirs",
        missing.id: "local",
    }


def test_field_that_is_not_serialized_loses_its_local_value() -> None:
    """A record is written with all its columns, as with Morango."""
    row = build_zoo_row("sample", slug="new")
    result = assert_same([row], app=[existing(row, secret="mine", slug="old")])
    assert [(found["slug"], found["secret"]) for found in result.app["sample"]] == [("new", "local")]


def test_local_edit_of_every_type_is_serialized() -> None:
    values = {name: values[1] for name, values in VALID.items() if len(values) > 1}
    row, other = build_zoo_row("sample", dirty=False), build_zoo_row("sample", **values)
    result = assert_same([row, other], app=[existing(row, slug="edited", _morango_dirty_bit=True)])
    data = json.loads(result.serialized[row.id]["serialized"])
    assert (data["slug"], data["words"], "secret" in data) == ("edited", "", False)


PLAIN: dict[tuple[str, str], list[Any]] = {
    ("member", "number"): [0, -1, 2**31 - 1, True, 1.5, "7", "x", None, [], "", NAN],
    ("letter", "closed"): [True, False, 0, 1, 2, "t", "x", None, "", []],
    ("letter", "text"): ["", "é\u2028\U0001f600", 5, None, True, [], {"a": 1}],
    ("club", "name"): ["x" * 50, "x" * 51, "", None, 5, " "],
    ("visit", "began_at"): [
        "2026-01-02T03:04:05Z",
        "2026-01-02T03:04:05.006Z",
        "2026-01-02T03:04:05+02:00",
        "2026-01-02T03:04:05.1234567Z",
        "2026-02-30T00:00:00Z",
        "2026-01-02T24:00:00Z",
        "2026-01-02T03:04:60Z",
        "0000-01-02T03:04:05Z",
        "soon",
    ],
}
"""Models with records that need no instance, as long as their values are plain."""


def test_fast_path_saves_values_as_morango() -> None:
    home, club = build_zoo_row("region"), build_zoo_row("club")
    person = build_zoo_row("person", home=home)
    targets: dict[str, dict[str, Any]] = {"member": {"club": club}, "visit": {"person": person}}
    rows = []
    for (model_name, name), values in PLAIN.items():
        for value in values:
            target = targets.get(model_name, {})
            if model_name == "member":  # numbers are unique within a club
                target = {"club": build_zoo_row("club")}
                rows.append(target["club"])
            rows.append(build_zoo_row(model_name, **target, **{name: value}))
    theirs, ours = both([home, club, person, *rows])
    assert (theirs.aborted, ours.errors, ours.dirty) == (None, theirs.errors, theirs.dirty)
    without_visits = [{**found.app, "visit": []} for found in (theirs, ours)]
    assert without_visits[0] == without_visits[1]
    assert ours.ids("visit") == theirs.ids("visit")


READING: dict[str, list[Any]] = {
    "day": [*VALID["day"], *INVALID["day"]],
    "moment": [*VALID["moment"], *INVALID["moment"]],
    "small": [*VALID["small"], *INVALID["small"], 32768],
    "big": [*VALID["big"], *INVALID["big"]],
    "positive": [*VALID["positive"], *INVALID["positive"], 2**31],
    "positive_small": [0, 32767, 32768, -1, "5", None, True],
    "positive_big": [0, 2**63 - 1, -1, "5", None, True],
}


def test_plain_dates_and_numbers_are_read_alike() -> None:
    rows = [build_zoo_row("reading", **{name: value}) for name in READING for value in READING[name]]
    result = assert_same(rows)
    assert len(result.app["reading"]) + len(result.errors) == len(rows)
