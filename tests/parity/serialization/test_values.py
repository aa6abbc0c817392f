"""Texts of values, to the byte, and the texts that Store rows had before."""

from __future__ import annotations

import datetime
import json
import math
import uuid
from decimal import Decimal
from typing import Any

import pytest
from django.db import connection
from morango.sync.operations import _serialize_into_store as morangos

from morango_celery.serialization import serialize_into_store
from tests.model_zoo.models import PROFILE, Lorry, Reading, Sample
from tests.parity.serialization.harness import (
    Engine,
    Outcome,
    assert_equal,
    assert_same,
    edited,
    run,
    unit,
)
from worker.school.models import Attempt

ID = "12" * 16
TEXTS = [
    "",
    "Æsop's “fables”: 寓话 🦊",
    "back\\slash \\n \\N \\. \\u0041",
    "tab\ttab\r\nline\n",
    "quotes \"' %s %(x)s %% {} $1 :x ?",
    "\x01\x1f\x7f\x85\u2028\ufeff",
    "</script>",
]
NAN = pytest.param(math.nan, marks=pytest.mark.needs_postgresql)  # NULL to SQLite
MOMENT = datetime.datetime(2026, 1, 2, 3, 4, 5, 678901, datetime.UTC)


def about(**values: Any) -> dict[str, Any]:
    return {"id": ID, "_morango_source_id": "source", "_morango_partition": "model_zoo", **values}


def sampled(stored: str | None = None, **values: Any) -> Outcome:
    """Return the result for a sample with these values, new or over a Store row."""
    rows = [] if stored is None else [unit(id=ID, profile=PROFILE, serialized=stored)]
    return assert_same([Sample(**about(**values))], rows, profile=PROFILE)


@pytest.mark.parametrize("is_stored", [False, True])
@pytest.mark.parametrize("text", TEXTS)
def test_any_text_is_serialized_alike(text: str, is_stored: bool) -> None:
    stored = unit(name="old")
    result = assert_same([edited(stored, name=text)], [stored] if is_stored else [])
    assert json.loads(result.store[stored.id]["serialized"])["name"] == text


@pytest.mark.parametrize("text", TEXTS)
def test_any_source_id_and_partition_are_serialized_alike(text: str) -> None:
    row = edited(unit(id=ID), _morango_source_id=text, _morango_partition=f"p{text}")
    stored = assert_same([row]).store[ID]
    assert (stored["source_id"], stored["partition"]) == (text, f"p{text}")


@pytest.mark.parametrize("text", TEXTS)
def test_any_text_in_a_conflict_is_kept_alike(text: str) -> None:
    older = json.dumps({"name": text}, ensure_ascii=False)
    stored = unit(dirty=True, serialized=json.dumps({"id": ID, "name": text}, ensure_ascii=False), id=ID)
    stored.conflicting_serialized_data = older + "\n"
    result = assert_same([edited(unit(id=ID), name=text)], [stored]).store[ID]
    assert result["conflicting_serialized_data"] == f"{stored.serialized}\n{older}\n"


@pytest.mark.parametrize("number", [0.0, -0.0, 0.1, 1e-320, 1e22, 1.0, math.inf, -math.inf, NAN])
def test_any_float_is_serialized_alike(number: float) -> None:
    values = {"learner_id": ID, "lesson_id": None, "kind": "quiz", "answered_at": MOMENT, "answer": ""}
    assert assert_same([Attempt(**about(**values), score=number)]).counters


@pytest.mark.parametrize("stored", [None, "{}"])
@pytest.mark.parametrize(
    "values",
    [
        {},
        {"words": ["two", "words"]},
        {"flag": True},
        {"flag": False, "small": -32768, "big": 2**63 - 1, "positive": 2**31 - 1},
        {"price": Decimal("-123456.70")},
        {"price": Decimal("0.00"), "ratio": 0.1},
        {"day": datetime.date(1, 1, 1)},
        {"day": datetime.date(9999, 12, 31)},
        {"hour": datetime.time(0)},
        {"hour": datetime.time(23, 59, 59, 999)},
        {"moment": MOMENT},
        {"moment": MOMENT.replace(microsecond=0)},
        {"moment": MOMENT.replace(microsecond=1)},
        {"moment": MOMENT.astimezone(datetime.timezone(datetime.timedelta(hours=5, minutes=45)))},
        {"moment": datetime.datetime(1, 1, 1, tzinfo=datetime.UTC)},
        {"length": datetime.timedelta(days=-1, seconds=3, microseconds=5)},
        {"length": datetime.timedelta(days=400)},
        {"address": "2001:db8::1"},
        {"address": "192.0.2.1"},
        {"other_id": uuid.UUID(ID)},
        {"data": {"b": [1, None, True, 1.5, "ä"], "a": {}}},
        {"data": "text"},
        {"data": []},
        {"slug": "a-b", "mail": "a@example.org", "link": "https://example.org/?q=ä", "color": "red"},
    ],
    ids=str,
)
def test_value_of_each_type_is_serialized_alike(values: dict[str, Any], stored: str | None) -> None:
    assert sampled(stored, **values).counters == {ID: 1}


@pytest.mark.parametrize(
    "stored",
    [
        "2026-01-02 03:04",
        "2026-01-02 03:04:05",
        "2026-01-02 03:04:05.6",
        "2026-01-02 03:04:05.678901",
        "2026-01-02 03:04:05,678901",
        "2026-01-02T03:04:05",
        "2026-01-02 03:04:05Z",
        "2026-01-02 03:04+05",
        "2026-01-02 03:04:05+05:45",
        "2026-01-02 03:04:05+054500",
        "2026-01-02 03:04:05.678901+05:45",
    ],
)
def test_time_written_by_others_is_serialized_alike(stored: str) -> None:
    """SQLite keeps any text that it is given."""
    if connection.vendor == "postgresql":
        stored = stored.replace(",", ".")

    def serialized(engine: Engine) -> Outcome:
        def rewritten(*arguments: Any) -> None:
            with connection.cursor() as cursor:
                cursor.execute("UPDATE model_zoo_reading SET moment = %s", [stored])
            engine(*arguments)

        return run(rewritten, [Reading(**about())], profile=PROFILE)

    theirs, ours = serialized(morangos), serialized(serialize_into_store)
    assert type(ours.aborted) is type(theirs.aborted)
    assert_equal(theirs, ours)


def test_column_of_several_types_is_serialized_alike() -> None:
    rows = [
        Sample(**about(day=day, price=price, flag=flag, data=data) | {"id": f"{number:032x}"})
        for number, (day, price, flag, data) in enumerate(
            [
                (None, None, None, None),
                (datetime.date(2026, 1, 2), Decimal("1.50"), True, {"a": 1}),
                (None, Decimal("2.00"), False, ["a"]),
                (datetime.date(2026, 1, 3), None, None, "a"),
            ]
        )
    ]
    assert len(assert_same(rows, profile=PROFILE).counters) == 4


def test_column_of_nulls_is_serialized_alike() -> None:
    rows = [Reading(**about(checked=None) | {"id": f"{number:032x}"}) for number in range(3)]
    assert len(assert_same(rows, profile=PROFILE).counters) == 3


def test_fields_that_are_not_to_be_serialized_are_left_out() -> None:
    stored = json.loads(sampled(secret="hush").store[ID]["serialized"])
    assert "secret" not in stored
    assert "_morango_dirty_bit" not in stored


def test_fields_that_are_not_to_be_serialized_stay_as_another_device_sent_them() -> None:
    stored = sampled('{"secret": "theirs", "id": 1}', secret="hush").store[ID]
    assert json.loads(stored["serialized"])["secret"] == "theirs"


def test_morangos_own_fields_can_be_left_out(monkeypatch: pytest.MonkeyPatch) -> None:
    left_out = ("id", "_morango_partition", "_morango_source_id", "big")
    monkeypatch.setattr(Sample, "morango_fields_not_to_serialize", left_out)
    stored = sampled().store[ID]
    assert stored["partition"] == "model_zoo"
    assert "id" not in json.loads(stored["serialized"])


def test_all_columns_may_be_left_out(monkeypatch: pytest.MonkeyPatch) -> None:
    names = tuple(field.attname for field in Lorry._meta.concrete_fields)
    monkeypatch.setattr(Lorry, "morango_fields_not_to_serialize", names)
    row = Lorry(**about(plate="A 1", load_kg=1, vehicle_ptr_id=ID))
    assert assert_same([row], profile=PROFILE).store[ID]["serialized"] == "{}"


@pytest.mark.parametrize(
    "stored",
    [
        "{}",
        '{"name": "old"}',
        '{"unknown": {"b": 1, "a": [NaN, Infinity, 1e400, 12345678901234567890123, 0.1]}, "name": 1}',
        '{"name": "old", "parent_id": null, "id": "x"}',
        '  {"name" :\n"\\u00e4\\ud83d\\ude00\\/"}\t',
        '{"half": "\\ud800", "\\udfff": 1}',
        '{"nul": "\\u0000", "nu\\u0000l": 1}',
        '{"name": 1, "name": 2, "twice": 1, "twice": 2}',
        '{"ä ö": "ü", "%s": "%", "": "\\\\N"}',
    ],
)
@pytest.mark.parametrize("dirty", [False, True])
def test_keys_of_the_store_row_keep_their_place_and_unknown_ones_their_values(
    stored: str, dirty: bool
) -> None:
    row = unit(id=ID, serialized=stored, dirty=dirty)
    result = assert_same([edited(unit(id=ID), name="here")], [row]).store[ID]
    held, written = json.loads(stored), json.loads(result["serialized"])
    assert list(written)[: len(held)] == list(held)
    assert written["name"] == "here"


def test_same_keys_in_another_order_stay_in_that_order() -> None:
    stored = unit()
    data = json.loads(stored.serialized)
    stored.serialized = json.dumps(dict(reversed(data.items())))
    result = assert_same([edited(unit(id=stored.id), name="here")], [stored])
    assert list(json.loads(result.store[stored.id]["serialized"])) == list(reversed(data))
