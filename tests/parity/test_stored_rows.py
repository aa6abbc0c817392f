"""Rows that PostgreSQL reads from the Store itself: it must read the JSON as Python and Django do."""

from __future__ import annotations

import math
from typing import Any

import pytest
from django.db import connection
from morango.models import Store

from morango_celery import deserialize_from_store
from morango_celery.deserialization import app_rows
from tests.model_zoo.rows import build_zoo_row
from tests.parity.harness import assert_same, both
from tests.support.comparison import Database, existing, run
from tests.support.factories import build_store_row
from worker.school.models import Attempt


def attempt_with(serialized_as: str, **fields: Any) -> Store:
    """Return an attempt with its score in the JSON as it is given."""
    row = build_store_row("attempt", **fields)
    row.serialized = row.serialized.replace('"score": 0.5', serialized_as)
    assert serialized_as in row.serialized
    return row


SCORES = ["0.1", "1", "0", "-0", "0.0", "-0.0", "1e-3", "1E-3", "0.30000000000000004", "4.9e-324"]


def test_numbers_are_read_alike() -> None:
    unit = build_store_row("unit")
    learner = build_store_row("learner", unit=unit)
    rows = [attempt_with(f'"score": {score}', learner=learner) for score in SCORES]
    theirs, ours = both([unit, learner, *rows])
    assert len(ours.app["attempt"]) == len(SCORES)
    assert list(map(signed_scores, [theirs, ours])) == [signed_scores(theirs)] * 2


def signed_scores(database: Database) -> dict[str, tuple[float, float]]:
    """Minus zero equals zero but for its sign."""
    return {row["id"]: (row["score"], math.copysign(1, row["score"])) for row in database.app["attempt"]}


TEXTS = {
    "escapes": '"\\u00e9\\t\\"\\\\\\/ \\ud83d\\ude48"',
    "not escaped": '"é🙈"',
    "spaces at the end": '"three   "',
    "SQL": '"\\\'); -- %s %(a)s"',
    "empty": '""',
}


@pytest.mark.parametrize("text", TEXTS.values(), ids=TEXTS)
def test_texts_are_read_alike(text: str) -> None:
    unit = build_store_row("unit")
    learner = build_store_row("learner", unit=unit)
    row = build_store_row("attempt", learner=learner)
    text = text.replace("\\'", "'")
    row.serialized = row.serialized.replace('"answer": ""', f'"answer": {text}')
    assert text in row.serialized
    assert assert_same([unit, learner, row]).ids("attempt") == {row.id}


UNREAD = {
    "NUL": '"a\\u0000b"',
    "half a pair": '"\\ud83d"',
    "not a number": "NaN",
    "huge": "1e999",
    "deep": "[" * 900 + "]" * 900,
    "an object": '{"id": "1", "score": 7}',
}


@pytest.mark.parametrize("value", UNREAD.values(), ids=UNREAD)
def test_keys_without_a_column_harm_no_record(value: str) -> None:
    unit = build_store_row("unit")
    learner = build_store_row("learner", unit=unit)
    row = attempt_with(f'"score": 0.5, "from_the_future": {value}', learner=learner)
    neighbour = build_store_row("attempt", learner=learner)
    assert assert_same([unit, learner, row, neighbour]).ids("attempt") == {row.id, neighbour.id}


def test_last_of_two_equal_keys_counts() -> None:
    unit = build_store_row("unit")
    learner = build_store_row("learner", unit=unit)
    row = attempt_with('"score": 0.5, "score": 0.75', learner=learner)
    assert assert_same([unit, learner, row]).app["attempt"][0]["score"] == 0.75


def test_keys_that_the_json_lacks_get_their_defaults() -> None:
    complete, lacking = build_zoo_row("reading"), build_zoo_row("reading")
    lacking.serialized = lacking.serialized.replace(', "checked": null', "")
    assert "checked" not in lacking.serialized
    found = {row["id"]: row["checked"] for row in assert_same([complete, lacking]).app["reading"]}
    assert found == {complete.id: None, lacking.id: True}


def test_bookkeeping_is_the_stores() -> None:
    unit = build_store_row("unit")
    forged: dict[str, Any] = {
        "_morango_dirty_bit": True,
        "_morango_source_id": "x",
        "_morango_partition": "y",
    }
    learner = build_store_row("learner", unit=unit)
    row = build_store_row("attempt", learner=learner, **forged)
    (found,) = assert_same([unit, learner, row]).app["attempt"]
    assert found["_morango_dirty_bit"] is False
    assert (found["_morango_source_id"], found["_morango_partition"]) == (row.source_id, row.partition)


def test_edited_row_stays() -> None:
    unit = build_store_row("unit")
    learner = build_store_row("learner", unit=unit)
    edited, other = (build_store_row("attempt", learner=learner) for _ in range(2))
    rows: list[Any] = [
        existing(unit),
        existing(learner),
        existing(edited, answer="mine", _morango_dirty_bit=True),
    ]
    result = run(deserialize_from_store, [unit, learner, edited, other], app=rows)
    assert {row["id"]: row["answer"] for row in result.app["attempt"]} == {edited.id: "mine", other.id: ""}


@pytest.mark.django_db
def test_plain_rows_never_travel_twice(monkeypatch: pytest.MonkeyPatch) -> None:
    # Given records that are plainly right
    unit = build_store_row("unit")
    learner = build_store_row("learner", unit=unit)
    rows = [build_store_row("attempt", learner=learner) for _ in range(3)]
    Store.objects.bulk_create([unit, learner, *rows])
    sent: list[type] = []
    upsert = app_rows.upsert

    def noting(model: Any, *arguments: Any) -> int:
        sent.append(model)
        return upsert(model, *arguments)

    monkeypatch.setattr(app_rows, "upsert", noting)

    # When they are deserialized, PostgreSQL is told their ids only
    deserialize_from_store("school")
    assert Attempt.objects.count() == 3
    assert (Attempt in sent) is (connection.vendor == "sqlite")
