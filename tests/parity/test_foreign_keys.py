"""Records that refer to records of another kind: the target must exist, and not be in error."""

from __future__ import annotations

import re

import pytest
from morango.models.certificates import Filter

from morango_celery import deserialize_from_store
from morango_celery.comparison import documented
from morango_celery.comparison.documented import Fate
from tests.model_zoo.rows import build_zoo_row
from tests.parity.harness import app_row, assert_same, both
from tests.support.comparison import existing, run
from tests.support.factories import SCHOOL_ID, build_store_row

OTHER = "ab" * 16
EARLIER = {"deserialization_error": "x", "deserialization_exception": "y"}
INVALID = "django.core.exceptions.ValidationError"


def test_null_is_saved_in_a_nullable_foreign_key() -> None:
    unit = build_store_row("unit")
    learner = build_store_row("learner", unit=unit)
    attempt = build_store_row("attempt", learner=learner, lesson_id=None)
    assert assert_same([unit, learner, attempt]).app["attempt"][0]["lesson_id"] is None


def test_null_in_a_required_foreign_key_is_an_error() -> None:
    row = build_store_row("lesson", unit_id=None)
    assert "cannot be null" in (assert_same([row]).errors[row.id][0] or "")


def test_missing_foreign_key_is_an_error() -> None:
    row = build_store_row("lesson")
    assert "unit_id" not in row.serialized
    assert "cannot be null" in (assert_same([row]).errors[row.id][0] or "")


def test_missing_target_is_named_in_the_error() -> None:
    row = build_store_row("lesson", unit_id=OTHER)
    text, path = assert_same([row]).errors[row.id]
    assert text == f"Lesson.unit_id references non-existent unit instance with id '{OTHER}'"
    assert path == "django.db.utils.IntegrityError"


def test_two_missing_targets_are_one_error() -> None:
    row = build_store_row("attempt", learner_id=OTHER, lesson_id="cd" * 16, partition="x")
    assert "references non-existent" in (assert_same([row]).errors[row.id][0] or "")


def test_missing_and_invalid_targets_fail_the_record() -> None:
    unit = build_store_row("unit", name="")
    lesson = build_store_row("lesson", unit=unit)
    attempt = build_store_row("attempt", learner_id=OTHER, lesson=lesson, partition="x")
    assert set(assert_same([unit, lesson, attempt]).errors) == {unit.id, lesson.id, attempt.id}


def test_own_invalid_field_counts_before_a_missing_target() -> None:
    row = build_store_row("lesson", unit_id=OTHER, title="")
    assert "title" in (assert_same([row]).errors[row.id][0] or "")


def test_reference_to_a_clean_target_is_saved() -> None:
    unit = build_store_row("unit", dirty=False)
    lesson = build_store_row("lesson", unit=unit)
    assert assert_same([unit, lesson], app=[existing(unit)]).ids("lesson") == {lesson.id}


def test_clean_target_outside_the_filter_counts() -> None:
    unit = build_store_row("unit", dirty=False, school_id=OTHER)
    lesson = build_store_row("lesson", unit=unit)
    result = assert_same([unit, lesson], app=[existing(unit)], filter=Filter(SCHOOL_ID))
    assert (result.ids("lesson"), result.errors) == ({lesson.id}, {})


def test_dirty_target_outside_the_filter_counts_if_an_older_version_is_there() -> None:
    unit = build_store_row("unit", school_id=OTHER, name="new")
    lesson = build_store_row("lesson", unit=unit)
    result = assert_same([unit, lesson], app=[existing(unit, name="old")], filter=Filter(SCHOOL_ID))
    assert (result.ids("lesson"), result.app["unit"][0]["name"]) == ({lesson.id}, "old")


def test_absent_dirty_target_outside_the_filter_is_an_error_where_morango_fails() -> None:
    unit = build_store_row("unit", school_id=OTHER)
    lesson = build_store_row("lesson", unit=unit)
    theirs, ours = both([unit, lesson], filter=Filter(SCHOOL_ID))
    assert theirs.aborted == "django.db.utils.IntegrityError"
    assert ours.errors == {lesson.id: (f"['unit with id {unit.id} failed to deserialize']", INVALID)}


def test_target_of_another_model_is_an_error() -> None:
    unit = build_store_row("unit")
    learner = build_store_row("learner", unit=unit)
    lesson = build_store_row("lesson", unit_id=OTHER)
    attempt = build_store_row("attempt", learner=learner, lesson_id=lesson.id)
    assert set(assert_same([unit, learner, lesson, attempt]).errors) == {lesson.id, attempt.id}


def test_invalid_target_is_named_in_the_error() -> None:
    unit = build_store_row("unit", name=None)
    lesson = build_store_row("lesson", unit=unit)
    text, path = assert_same([unit, lesson]).errors[lesson.id]
    assert text == f"['unit with id {unit.id} failed to deserialize']"
    assert path == INVALID


def test_target_with_an_invalid_newer_version_fails_the_record() -> None:
    unit = build_store_row("unit", name=None)
    lesson = build_store_row("lesson", unit=unit)
    result = assert_same([unit, lesson], app=[app_row(unit)])
    assert result.errors[lesson.id][0] == f"['unit with id {unit.id} failed to deserialize']"


def test_failure_goes_on_through_all_levels() -> None:
    unit = build_store_row("unit")
    learner = build_store_row("learner", unit=unit, full_name=None)
    attempt = build_store_row("attempt", learner=learner)
    feedback = build_store_row("feedback", attempt=attempt)
    result = assert_same([unit, learner, attempt, feedback])
    assert set(result.errors) == {learner.id, attempt.id, feedback.id}


def test_failed_target_fails_all_its_records_and_no_others() -> None:
    bad, good = build_store_row("unit", name=""), build_store_row("unit")
    rows = [build_store_row("lesson", unit=bad if number % 2 else good) for number in range(8)]
    result = assert_same([bad, good, *rows])
    assert len(result.errors) == 5
    assert len(result.app["lesson"]) == 4


@pytest.mark.parametrize("there", [False, True])
def test_target_that_fails_again_fails_the_record(there: bool) -> None:
    unit = build_store_row("unit", columns=EARLIER, name="")
    lesson = build_store_row("lesson", unit=unit)
    result = assert_same([unit, lesson], app=[app_row(unit)] if there else [])
    assert result.errors[lesson.id] == (f"['unit with id {unit.id} failed to deserialize']", INVALID)


def test_target_that_is_sound_now_saves_the_record() -> None:
    unit = build_store_row("unit", columns=EARLIER)
    lesson = build_store_row("lesson", unit=unit, columns=EARLIER)
    assert assert_same([lesson, unit]).errors == {}


def test_target_that_failed_in_an_earlier_run_and_is_skipped_counts_if_it_is_there() -> None:
    unit = build_store_row("unit", columns=EARLIER, name="new")
    lesson = build_store_row("lesson", unit=unit)
    result = assert_same([unit, lesson], app=[app_row(unit)], skip_erroring=True)
    assert result.ids("lesson") == {lesson.id}
    assert result.errors == {unit.id: ("x", "y")}


def test_target_in_error_outside_the_filter_counts_if_it_is_there() -> None:
    unit = build_store_row("unit", columns=EARLIER, school_id=OTHER)
    lesson = build_store_row("lesson", unit=unit)
    result = assert_same([unit, lesson], app=[existing(unit)], filter=Filter(SCHOOL_ID))
    assert result.ids("lesson") == {lesson.id}
    assert result.errors == {unit.id: ("x", "y")}


def test_target_that_could_not_be_saved_counts_with_morango_if_an_older_version_is_there() -> None:
    """Morango puts records aside that failed validation, but not those that couldn't be saved; here both are
    failures."""
    unit = build_store_row("unit")
    learner = build_store_row("learner", unit=unit, school_id=OTHER)
    attempt = build_store_row("attempt", learner=learner)
    older = existing(learner, school_id=SCHOOL_ID)
    theirs, ours = both([unit, learner, attempt], app=[older])
    assert (list(theirs.errors), theirs.ids("attempt")) == ([learner.id], {attempt.id})
    assert ours.errors[learner.id] == theirs.errors[learner.id]
    assert ours.errors[attempt.id] == (f"['learner with id {learner.id} failed to deserialize']", INVALID)
    assert ours.app["learner"] == theirs.app["learner"]


@pytest.mark.parametrize("batch_size", [1, 1000])
def test_error_names_one_of_several_bad_targets_where_one_failed_in_this_run(batch_size: int) -> None:
    """Left to chance with `skip_erroring`: batches don't know of each other's failures then."""
    cabinet = build_zoo_row("cabinet", heading="x" * 51)
    label = build_zoo_row("label", number=1, cabinet_id=OTHER, printed_for_id=cabinet.id, drawer_id=OTHER)
    rows, sizes = [cabinet, label], (batch_size,)
    ours = run(deserialize_from_store, rows, skip_erroring=True, batch_sizes=sizes)
    text, path = ours.errors[label.id]
    assert path == "django.db.utils.IntegrityError"
    assert re.fullmatch(
        rf"Label\.(drawer|cabinet)_id references non-existent \w+ instance with id '{OTHER}'", text or ""
    )
    assert ours.app["label"] == []


@pytest.mark.parametrize("batch_size", [1, 1000])
@pytest.mark.parametrize("keys", [("cabinet_id", "printed_for_id"), ("printed_for_id", "cabinet_id")])
def test_record_of_a_failed_and_a_deleted_target_is_deleted_or_in_error(
    batch_size: int, keys: tuple[str, str]
) -> None:
    """Left to chance with `skip_erroring`, as above."""
    failing = build_zoo_row("cabinet", heading="x" * 51)
    gone = build_zoo_row("cabinet", deleted=True)
    label = build_zoo_row("label", number=1, **dict(zip(keys, (gone.id, failing.id), strict=True)))
    rows, sizes = [failing, gone, label], (batch_size,)
    ours = run(deserialize_from_store, rows, skip_erroring=True, batch_sizes=sizes)
    assert (label.id in ours.deleted) is not (label.id in ours.errors)
    assert ours.app["label"] == []


def test_error_names_one_of_the_missing_targets_of_several_models() -> None:
    """Left to chance: Morango ends with the model that it met last, in other records as well."""
    first = build_zoo_row("label", number=1, cabinet_id=OTHER)
    second = build_zoo_row("label", number=2, drawer_id=OTHER, cabinet_id=OTHER)
    theirs, ours = both([first, second])
    assert ours.errors[first.id] == theirs.errors[first.id]
    fates = [
        Fate(False, True, path or "", text or "")
        for text, path in (theirs.errors[second.id], ours.errors[second.id])
    ]
    assert fates[0].path == fates[1].path == "django.db.utils.IntegrityError"
    assert fates[1].text == f"Label.cabinet_id references non-existent cabinet instance with id '{OTHER}'"
    assert documented.named(*fates) == documented.CHANCE
