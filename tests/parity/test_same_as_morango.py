"""Where Morango does right, the result is Morango's, error texts and exception paths included."""

from __future__ import annotations

from typing import Any

import pytest
from morango.models.certificates import Filter

from morango_celery import deserialize_from_store
from tests.factories import SCHOOL_ID, build_school, build_store_row
from tests.parity.harness import app_row, assert_same
from worker.school.models import PROFILE, Learner

OTHER = "ab" * 16


def test_a_whole_school() -> None:
    result = assert_same(build_school(120))
    assert not any(result.dirty.values())
    assert len(result.app["attempt"]) > 80


def test_records_that_are_not_dirty_are_left_alone() -> None:
    row = build_store_row("unit", dirty=False)
    assert assert_same([row]).app["unit"] == []


def test_an_existing_row_is_overwritten() -> None:
    row = build_store_row("unit", name="new")
    assert assert_same([row], app=[app_row(row)]).app["unit"][0]["name"] == "new"


def test_a_dirty_row_that_equals_the_synced_one_becomes_clean() -> None:
    row = build_store_row("unit", name="same")
    existing = app_row(row, name="same", _morango_dirty_bit=True)
    result = assert_same([row], app=[existing])
    assert result.app["unit"][0]["_morango_dirty_bit"] is False


def test_unknown_keys_are_dropped() -> None:
    assert assert_same([build_store_row("unit", from_the_future=1)]).app["unit"]


def test_a_missing_id_is_computed() -> None:
    row = build_store_row("unit")
    row.serialized = row.serialized.replace(f'"id": "{row.id}"', '"id": null')
    assert assert_same([row]).app["unit"]


def test_missing_keys_get_defaults() -> None:
    unit = build_store_row("unit")
    learner = build_store_row("learner", unit=unit)
    attempt = build_store_row("attempt", learner=learner)
    attempt.serialized = attempt.serialized.replace('"kind": "exercise", ', "")
    assert "kind" not in attempt.serialized
    assert assert_same([unit, learner, attempt]).app["attempt"][0]["kind"] == "exercise"


class TestTrees:
    def test_three_deep_whatever_the_order(self) -> None:
        top = build_store_row("unit", name="top")
        middle = build_store_row("unit", parent=top)
        bottom = build_store_row("unit", parent=middle)
        assert len(assert_same([bottom, middle, top]).app["unit"]) == 3

    def test_a_chain_of_20_and_a_wide_node(self) -> None:
        chain = [build_store_row("unit")]
        for _ in range(20):
            chain.append(build_store_row("unit", parent=chain[-1]))
        wide = [build_store_row("unit", parent=chain[3]) for _ in range(12)]
        assert_same([*wide, *reversed(chain)])

    def test_parents_go_before_their_children(self) -> None:
        chain = [build_store_row("unit")]
        for _ in range(5):
            chain.append(build_store_row("unit", parent=chain[-1]))
        for row in reversed(chain):
            row.save(force_insert=True)
        run = deserialize_from_store(PROFILE)
        assert (run.saved, run.failed, run.pass_number) == (6, 0, 1)

    def test_a_clean_parent(self) -> None:
        top = build_store_row("unit", dirty=False)
        child = build_store_row("unit", parent=top)
        assert child.id in assert_same([top, child], app=[app_row(top)]).ids("unit")

    def test_a_missing_parent(self) -> None:
        orphan = build_store_row("unit", parent_id=OTHER)
        grandchild = build_store_row("unit", parent=orphan)
        errors = assert_same([orphan, grandchild]).errors
        assert errors[orphan.id][1] == "morango.errors.MorangoMissingParent"
        assert errors[grandchild.id][1] == "morango.errors.MorangoDirtyParent"

    def test_a_parent_that_is_not_valid(self) -> None:
        top = build_store_row("unit", name=None)
        child = build_store_row("unit", parent=top)
        grandchild = build_store_row("unit", parent=child, name=None)
        errors = assert_same([top, child, grandchild]).errors
        assert "name" in (errors[top.id][0] or "")
        assert errors[grandchild.id][1] == "morango.errors.MorangoDirtyParent"

    def test_a_cycle_of_two(self) -> None:
        one = build_store_row("unit")
        other = build_store_row("unit", parent=one)
        one._self_ref_fk = other.id
        beneath = build_store_row("unit", parent=other)
        errors = assert_same([one, other, beneath]).errors
        assert {path for _, path in errors.values()} == {"morango.errors.MorangoDirtyParent"}

    def test_a_child_of_a_deleted_parent(self) -> None:
        top = build_store_row("unit", deleted=True)
        child = build_store_row("unit", parent=top)
        assert child.id in assert_same([top, child]).errors

    def test_a_record_that_is_its_own_parent(self) -> None:
        row = build_store_row("unit")
        row._self_ref_fk = row.id
        assert assert_same([row]).errors


class TestForeignKeys:
    def test_null_where_it_is_allowed(self) -> None:
        unit = build_store_row("unit")
        learner = build_store_row("learner", unit=unit)
        attempt = build_store_row("attempt", learner=learner, lesson_id=None)
        assert assert_same([unit, learner, attempt]).app["attempt"][0]["lesson_id"] is None

    def test_null_where_it_is_not(self) -> None:
        row = build_store_row("lesson", unit_id=None)
        assert "cannot be null" in (assert_same([row]).errors[row.id][0] or "")

    def test_a_missing_target(self) -> None:
        row = build_store_row("lesson", unit_id=OTHER)
        text, path = assert_same([row]).errors[row.id]
        assert text == f"Lesson.unit_id references non-existent unit instance with id '{OTHER}'"
        assert path == "django.db.utils.IntegrityError"

    def test_a_target_that_is_not_valid(self) -> None:
        unit = build_store_row("unit", name=None)
        lesson = build_store_row("lesson", unit=unit)
        text, path = assert_same([unit, lesson]).errors[lesson.id]
        assert text == f"['unit with id {unit.id} failed to deserialize']"
        assert path == "django.core.exceptions.ValidationError"

    def test_a_target_whose_newer_version_is_not_valid(self) -> None:
        unit = build_store_row("unit", name=None)
        lesson = build_store_row("lesson", unit=unit)
        result = assert_same([unit, lesson], app=[app_row(unit)])
        assert result.errors[lesson.id][0] == f"['unit with id {unit.id} failed to deserialize']"

    def test_failure_goes_on_through_two_levels(self) -> None:
        unit = build_store_row("unit")
        learner = build_store_row("learner", unit=unit, full_name=None)
        attempt = build_store_row("attempt", learner=learner)
        feedback = build_store_row("feedback", attempt=attempt)
        assert {learner.id, attempt.id, feedback.id} == set(
            assert_same([unit, learner, attempt, feedback]).errors
        )


class TestErrors:
    @pytest.mark.parametrize(
        ("model_name", "fields"),
        [
            ("unit", {"name": ""}),
            ("unit", {"name": "x" * 101}),
            ("lesson", {"opens_at": "yesterday"}),
            ("lesson", {"title": None}),
            ("attempt", {"score": 1.5}),
            ("attempt", {"score": "much"}),
            ("attempt", {"kind": "nonsense"}),
            ("attempt", {"answered_at": "2026-02-30T00:00:00Z"}),
            ("learner", {"birth_year": 3}),
            ("learner", {"full_name": "x" * 121, "birth_year": "soon"}),
        ],
    )
    def test_an_invalid_field(self, model_name: str, fields: dict[str, object]) -> None:
        unit = build_store_row("unit")
        learner = build_store_row("learner", unit=unit)
        targets = {
            "unit": {},
            "lesson": {"unit": unit},
            "learner": {"unit": unit},
            "attempt": {"learner": learner},
        }
        row = build_store_row(model_name, **targets[model_name], **fields)  # type: ignore[arg-type]
        result = assert_same([unit, learner, row])
        assert result.errors[row.id][1] == "django.core.exceptions.ValidationError"
        assert list(result.errors) == [row.id]

    @pytest.mark.parametrize("text", ["", "{", "nonsense", '{"id": }'])
    def test_no_json(self, text: str) -> None:
        rows = [build_store_row("unit", serialized=text), build_store_row("unit")]
        assert assert_same(rows).errors[rows[0].id][1] == "json.decoder.JSONDecodeError"

    def test_an_error_is_forgotten_with_success(self) -> None:
        row = build_store_row(
            "unit", columns={"deserialization_error": "x", "deserialization_exception": "y"}
        )
        assert not assert_same([row]).errors

    def test_the_models_own_save_refuses(self) -> None:
        unit = build_store_row("unit")
        learner = build_store_row("learner", unit=unit, school_id=OTHER)
        good = build_store_row("learner", unit=unit)
        result = assert_same([unit, learner, good])
        assert result.errors[learner.id][1] == "worker.school.models.WrongSchoolError"
        assert result.ids("learner") == {good.id}

    def test_a_unique_value_taken_by_another_record(self) -> None:
        unit = build_store_row("unit")
        first = build_store_row("learner", unit=unit, username="ada")
        second = build_store_row("learner", unit=unit, username="ada")
        good = [build_store_row("learner", unit=unit) for _ in range(5)]
        result = assert_same([unit, first, *good[:2], second, *good[2:]])
        [(loser, (_, path))] = result.errors.items()
        assert loser in (first.id, second.id)
        assert path == "django.db.utils.IntegrityError"
        assert len(result.app["learner"]) == 6


class TestDeletion:
    @pytest.mark.parametrize("hard", [False, True])
    def test_of_a_record_of_a_tree(self, hard: bool) -> None:
        row = build_store_row("unit", deleted=True, hard_deleted=hard)
        result = assert_same([row], app=[app_row(row)])
        assert result.app["unit"] == []
        assert result.deleted == set()


class TestFilterAndSkipping:
    def test_only_what_the_filter_covers(self) -> None:
        here, elsewhere = build_store_row("unit"), build_store_row("unit", school_id=OTHER)
        result = assert_same([here, elsewhere], filter=Filter(SCHOOL_ID))
        assert result.ids("unit") == {here.id}

    def test_overlapping_prefixes(self) -> None:
        rows = [build_store_row("unit"), build_store_row("unit", school_id=OTHER)]
        assert_same(rows, filter=Filter(f"{SCHOOL_ID}:units\n{SCHOOL_ID}\n{SCHOOL_ID}:u"))

    def test_the_empty_filter_covers_everything(self) -> None:
        assert len(assert_same([build_store_row("unit")], filter=Filter("")).app["unit"]) == 1

    def test_the_filter_reaches_the_models_own_code(self, monkeypatch: pytest.MonkeyPatch) -> None:
        seen: list[tuple[str, str]] = []
        original = Learner.deserialize.__func__, Learner.clean_fields

        def deserialize(cls: Any, data: Any, sync_filter: Any = None) -> Any:
            seen.append(("deserialize", str(sync_filter)))
            return original[0](cls, data, sync_filter=sync_filter)

        def clean_fields(self: Any, exclude: Any = None, sync_filter: Any = None) -> None:
            seen.append(("clean_fields", str(sync_filter)))
            original[1](self, exclude=exclude, sync_filter=sync_filter)

        monkeypatch.setattr(Learner, "deserialize", classmethod(deserialize))
        monkeypatch.setattr(Learner, "clean_fields", clean_fields)
        unit = build_store_row("unit")
        assert_same([unit, build_store_row("learner", unit=unit)], filter=Filter(SCHOOL_ID))
        assert seen == [("deserialize", SCHOOL_ID), ("clean_fields", SCHOOL_ID)] * 2

    def test_skip_erroring(self) -> None:
        old = {"deserialization_error": "x", "deserialization_exception": "y"}
        broken = build_store_row("unit", columns=old)
        child = build_store_row("unit", parent=broken)
        empty = build_store_row("unit", columns={"deserialization_error": ""})
        result = assert_same([broken, child, empty], skip_erroring=True)
        assert result.errors[broken.id] == ("x", "y")
        assert result.errors[child.id][1] == "morango.errors.MorangoMissingParent"
        assert result.ids("unit") == {empty.id}

    def test_without_it_errors_are_tried_again(self) -> None:
        old = {"deserialization_error": "x", "deserialization_exception": "y"}
        assert assert_same([build_store_row("unit", columns=old)]).app["unit"]
