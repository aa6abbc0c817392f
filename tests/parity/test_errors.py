"""Errors of records that can't be deserialized: Morango's text and exception path, and nothing written."""

from __future__ import annotations

from typing import Any

import pytest

from morango_celery import deserialize_from_store
from tests.parity.harness import assert_same
from tests.support.comparison import existing, run
from tests.support.factories import build_store_row

OTHER = "ab" * 16


INVALID: list[tuple[str, dict[str, Any]]] = [
    ("unit", {"name": ""}),
    ("unit", {"name": "x" * 101}),
    ("lesson", {"opens_at": "yesterday"}),
    ("lesson", {"title": None}),
    ("lesson", {"title": ""}),
    ("lesson", {"title": "x" * 201}),
    ("attempt", {"score": 1.5}),
    ("attempt", {"score": "much"}),
    ("attempt", {"kind": "nonsense"}),
    ("attempt", {"answered_at": "2026-02-30T00:00:00Z"}),
    ("attempt", {"answered_at": None, "score": None, "kind": ""}),
    ("learner", {"birth_year": 3}),
    ("learner", {"full_name": "x" * 121, "birth_year": "soon"}),
]


def test_invalid_field_is_named_by_its_error() -> None:
    unit = build_store_row("unit")
    learner = build_store_row("learner", unit=unit)
    targets: dict[str, dict[str, Any]] = {
        "unit": {},
        "lesson": {"unit": unit},
        "learner": {"unit": unit},
        "attempt": {"learner": learner},
    }
    rows = [build_store_row(name, **targets[name], **fields) for name, fields in INVALID]
    result = assert_same([unit, learner, *rows])
    assert set(result.errors) == {row.id for row in rows}
    assert {path for _, path in result.errors.values()} == {"django.core.exceptions.ValidationError"}


@pytest.mark.parametrize("model_name", ["unit", "lesson", "learner"])
def test_text_that_is_no_json_is_its_records_error(model_name: str) -> None:
    texts = ["", "{", "nonsense", '{"id": }', "\ufeff{}", "{}{}"]
    rows = [build_store_row(model_name, serialized=text) for text in texts]
    result = assert_same([*rows, build_store_row("unit")])
    assert {path for _, path in result.errors.values()} == {"json.decoder.JSONDecodeError"}
    assert (len(result.errors), len(result.app["unit"])) == (len(texts), 1)


@pytest.mark.parametrize("model_name", ["unit", "lesson", "attempt"])
def test_empty_object_is_its_records_error(model_name: str) -> None:
    row = build_store_row(model_name, serialized="{}", partition="x")
    result = assert_same([row, build_store_row("unit")])
    assert result.errors[row.id][1] == "django.core.exceptions.ValidationError"


def test_unknown_keys_are_dropped() -> None:
    assert assert_same([build_store_row("unit", from_the_future=1)]).app["unit"]


def test_missing_id_is_computed() -> None:
    row = build_store_row("unit")
    row.serialized = row.serialized.replace(f'"id": "{row.id}"', '"id": null')
    assert assert_same([row]).ids("unit") == {row.id}


@pytest.mark.parametrize("model_name", ["unit", "lesson", "learner"])
def test_source_id_and_partition_are_those_of_the_store(model_name: str) -> None:
    unit = build_store_row("unit")
    row = build_store_row(
        model_name, unit=unit, _morango_source_id="nonsense", _morango_partition="elsewhere"
    )
    found = {row["id"]: row for row in assert_same([unit, row]).app[model_name]}
    assert found[row.id]["_morango_source_id"] == row.source_id
    assert found[row.id]["_morango_partition"] == row.partition


@pytest.mark.parametrize("model_name", ["unit", "lesson", "learner"])
def test_dirty_bit_is_no_part_of_a_record(model_name: str) -> None:
    unit = build_store_row("unit")
    row = build_store_row(model_name, unit=unit, _morango_dirty_bit=True)
    found = {row["id"]: row for row in assert_same([unit, row]).app[model_name]}
    assert found[row.id]["_morango_dirty_bit"] is False


def test_missing_keys_get_defaults() -> None:
    unit = build_store_row("unit")
    learner = build_store_row("learner", unit=unit)
    attempt = build_store_row("attempt", learner=learner)
    attempt.serialized = attempt.serialized.replace('"kind": "exercise", ', "")
    assert "kind" not in attempt.serialized
    assert assert_same([unit, learner, attempt]).app["attempt"][0]["kind"] == "exercise"


def test_last_of_two_equal_keys_counts() -> None:
    row = build_store_row("unit", name="first")
    row.serialized = row.serialized[:-1] + ', "name": "second"}'
    assert assert_same([row]).app["unit"][0]["name"] == "second"


def test_error_is_forgotten_with_success() -> None:
    row = build_store_row("unit", columns={"deserialization_error": "x", "deserialization_exception": "y"})
    assert not assert_same([row]).errors


def test_error_replaces_that_of_an_earlier_run() -> None:
    earlier = {"deserialization_error": "x", "deserialization_exception": "y"}
    row = build_store_row("unit", columns=earlier, name="")
    assert "name" in (assert_same([row]).errors[row.id][0] or "")


@pytest.mark.parametrize("error", ["", None])
def test_empty_error_is_none(error: str | None) -> None:
    row = build_store_row("unit", columns={"deserialization_error": error})
    assert not assert_same([row]).errors


@pytest.mark.parametrize(("reference", "told"), [("no\x00id", "no\\x00id"), ("no\ud800id", "no\\ud800id")])
def test_text_that_postgresql_can_not_hold_is_told_escaped(reference: str, told: str) -> None:
    lesson = build_store_row("lesson", unit_id=reference)
    ours = run(deserialize_from_store, [lesson])
    text = f"Lesson.unit_id references non-existent unit instance with id '{told}'"
    assert ours.errors == {lesson.id: (text, "django.db.utils.IntegrityError")}


def test_only_the_record_is_in_error_and_its_older_row_stays() -> None:
    unit = build_store_row("unit")
    good = [build_store_row("lesson", unit=unit) for _ in range(5)]
    bad = build_store_row("lesson", unit=unit, title="")
    app = [existing(unit), existing(bad, title="old")]
    result = assert_same([unit, *good[:2], bad, *good[2:]], app=app)
    assert list(result.errors) == [bad.id]
    assert {row["id"]: row["title"] for row in result.app["lesson"]}[bad.id] == "old"


def test_several_records_fail_each_for_its_own_reason() -> None:
    unit = build_store_row("unit")
    good = build_store_row("lesson", unit=unit)
    rows = [
        build_store_row("lesson", unit=unit, title=""),
        build_store_row("lesson", unit_id=OTHER),
        build_store_row("lesson", unit=unit, opens_at="soon"),
        build_store_row("lesson", unit_id=None),
        build_store_row("lesson", serialized="nonsense"),
    ]
    result = assert_same([unit, *rows, good])
    assert (set(result.errors), result.ids("lesson")) == ({row.id for row in rows}, {good.id})
