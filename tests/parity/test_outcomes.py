"""Outcomes of records: each alone, and all of them in one run."""

from __future__ import annotations

import pytest

from morango_celery import deserialize_from_store
from tests.model_zoo.rows import build_zoo_row
from tests.parity.harness import app_row, assert_same, assert_same_but_clean, both
from tests.support.comparison import existing
from tests.support.factories import build_school, build_store_row
from worker.school.models import PROFILE


def test_whole_school_is_saved() -> None:
    result = assert_same(build_school(120))
    assert not any(result.dirty.values())
    assert len(result.app["attempt"]) > 80


def test_targets_go_before_what_refers_to_them() -> None:
    for row in reversed(list(build_school(30))):
        row.save(force_insert=True)
    run = deserialize_from_store(PROFILE)
    assert (run.saved, run.failed, run.pass_number) == (30, 0, 1)


def test_records_that_are_not_dirty_are_left_alone() -> None:
    row = build_store_row("unit", dirty=False)
    assert assert_same([row]).app["unit"] == []


def test_records_of_another_profile_are_left_alone() -> None:
    ours, others = build_store_row("unit"), build_zoo_row("club")
    result = assert_same([ours, others])
    assert result.dirty == {ours.id: False, others.id: True}


def test_existing_row_is_overwritten() -> None:
    row = build_store_row("unit", name="new")
    assert assert_same([row], app=[app_row(row)]).app["unit"][0]["name"] == "new"


def test_dirty_row_that_equals_the_synced_one_becomes_clean() -> None:
    row = build_store_row("unit", name="same")
    result = assert_same([row], app=[app_row(row, name="same", _morango_dirty_bit=True)])
    assert result.app["unit"][0]["_morango_dirty_bit"] is False


@pytest.mark.parametrize("hard", [False, True])
@pytest.mark.parametrize("there", [False, True])
def test_deleted_record_loses_its_row(there: bool, hard: bool) -> None:
    unit = build_store_row("unit", dirty=False)
    lesson = build_store_row("lesson", unit=unit, deleted=True)
    lesson.hard_deleted = hard
    app = [existing(unit), existing(lesson)] if there else []
    result = assert_same_but_clean([unit, lesson], deleted=[lesson], app=app)
    assert result.app["lesson"] == []
    assert result.deleted == result.hard_deleted == set()
    assert result.serialized[lesson.id]["deleted"] is True


@pytest.mark.parametrize("serialized", ["", "{}", "no JSON"])
def test_nothing_of_a_deleted_record_is_read(serialized: str) -> None:
    unit = build_store_row("unit", dirty=False)
    gone = build_store_row("lesson", unit=unit)
    row = existing(gone)
    gone.deleted = gone.hard_deleted = True
    gone.serialized = serialized
    result = assert_same_but_clean([unit, gone], deleted=[gone], app=[existing(unit), row])
    assert result.app["lesson"] == []


@pytest.mark.parametrize("hard", [False, True])
def test_deletion_propagates_to_records_that_refer_to_it(hard: bool) -> None:
    unit = build_store_row("unit", deleted=True, hard_deleted=hard)
    lesson = build_store_row("lesson", unit=unit)
    result = assert_same_but_clean([unit, lesson], propagated=[lesson])
    assert result.deleted == {lesson.id}
    assert result.hard_deleted == ({lesson.id} if hard else set())
    assert result.serialized[lesson.id]["deleted"] is True
    assert result.serialized[lesson.id]["hard_deleted"] is hard
    assert result.serialized[lesson.id]["saved_here"] is True
    assert (result.serialized[lesson.id]["serialized"] == "{}") is hard


def test_record_in_error_stays_as_it_was() -> None:
    row = build_store_row("unit", name="")
    result = assert_same([row], app=[app_row(row)])
    assert result.errors[row.id] == (
        "{'name': ['This field cannot be blank.']}",
        "django.core.exceptions.ValidationError",
    )
    assert (result.dirty[row.id], result.app["unit"][0]["name"]) == (True, "old")


def test_outcomes_of_one_run_do_not_affect_each_other() -> None:
    unit = build_store_row("unit")
    clean = build_store_row("unit", dirty=False)
    gone = build_store_row("unit", deleted=True)
    purged = build_store_row("unit", hard_deleted=True)
    saved = build_store_row("lesson", unit=unit)
    deleted = build_store_row("lesson", unit=unit, deleted=True)
    propagated = build_store_row("lesson", unit=gone)
    spread_hard = build_store_row("lesson", unit=purged)
    broken = build_store_row("lesson", unit=unit, title=None)
    conflicted = build_store_row("lesson", unit=unit, title="synced")
    app = [
        app_row(unit),
        existing(clean),
        existing(gone),
        existing(deleted),
        existing(propagated, unit_id=clean.id),
        existing(broken, title="old"),
        existing(conflicted, title="edited here", _morango_dirty_bit=True),
    ]
    rows = [unit, clean, gone, purged, saved, deleted, propagated, spread_hard, broken]
    theirs, ours = both([*rows, conflicted], app=app)
    assert (theirs.errors, theirs.deleted, theirs.hard_deleted) == (
        ours.errors,
        ours.deleted,
        ours.hard_deleted,
    )
    assert {row_id for row_id, dirty in ours.dirty.items() if dirty} == {broken.id, conflicted.id}
    assert list(ours.errors) == [broken.id]
    assert (ours.deleted, ours.hard_deleted) == ({propagated.id, spread_hard.id}, {spread_hard.id})
    assert ours.ids("lesson") == {saved.id, propagated.id, broken.id, conflicted.id}
    for database in (theirs, ours):  # the one difference that is not in a dirty bit
        database.app["lesson"] = [row for row in database.app["lesson"] if row["id"] != conflicted.id]
    assert theirs.app == ours.app
