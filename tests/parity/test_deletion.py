"""Records that refer to deleted ones, at one level and at two, and the cascades of deletions."""

from __future__ import annotations

import pytest
from morango.models import DeletedModels, HardDeletedModels, Store

from tests.model_zoo.rows import build_zoo_row
from tests.parity.harness import assert_same, assert_same_but_clean, both
from tests.support.comparison import existing
from tests.support.factories import build_store_row

both_kinds = pytest.mark.parametrize("hard", [False, True], ids=["soft", "hard"])


def noted(row: Store, *, hard: bool = False) -> list[DeletedModels | HardDeletedModels]:
    """Return the notes about a record that was deleted here, until the next serialization."""
    tables = [DeletedModels, HardDeletedModels] if hard else [DeletedModels]
    return [table(id=row.id, profile=row.profile) for table in tables]


@both_kinds
def test_target_deleted_in_an_earlier_sync_deletes_the_record(hard: bool) -> None:
    unit = build_store_row("unit", dirty=False, deleted=True, hard_deleted=hard)
    lesson = build_store_row("lesson", unit=unit)
    result = assert_same_but_clean([unit, lesson], propagated=[lesson])
    assert result.deleted == {lesson.id}
    assert result.hard_deleted == ({lesson.id} if hard else set())


@both_kinds
def test_target_deleted_in_this_sync_takes_the_older_row_along(hard: bool) -> None:
    unit = build_store_row("unit", deleted=True)
    unit.hard_deleted = hard
    lesson = build_store_row("lesson", unit=unit, title="new")
    app = [existing(unit), existing(lesson, title="old")]
    result = assert_same_but_clean([lesson, unit], propagated=[lesson], app=app)
    assert (result.app["unit"], result.app["lesson"]) == ([], [])


def test_deletion_cascades_to_rows_that_are_not_part_of_the_sync() -> None:
    unit = build_store_row("unit", deleted=True)
    learner = build_store_row("learner", unit=unit, dirty=False)
    attempt = build_store_row("attempt", learner=learner, dirty=False)
    feedback = build_store_row("feedback", attempt=attempt, dirty=False)
    rows = [unit, learner, attempt, feedback]
    result = assert_same(rows, app=[existing(row) for row in rows])
    assert {table: rows for table, rows in result.app.items() if rows} == {}
    assert result.deleted == set()  # nothing was deleted locally, and the Store rows stay as they are


def test_deletion_cascades_to_rows_with_local_edits() -> None:
    unit = build_store_row("unit", deleted=True)
    lesson = build_store_row("lesson", unit=unit, dirty=False)
    app = [existing(unit), existing(lesson, title="edited here", _morango_dirty_bit=True)]
    assert assert_same([unit, lesson], app=app).app["lesson"] == []


@both_kinds
def test_deletion_is_noted_on_both_levels_below_deleted_targets(hard: bool) -> None:
    unit = build_store_row("unit")
    learner = build_store_row("learner", unit=unit, deleted=True, hard_deleted=hard)
    attempt = build_store_row("attempt", learner=learner, partition="x", deleted=True)
    feedback = build_store_row("feedback", attempt=attempt)
    app = [existing(unit), *([] if hard else [existing(learner), existing(attempt), existing(feedback)])]
    rows = [unit, learner, attempt, feedback]
    result = assert_same_but_clean(rows, deleted=[learner, attempt], propagated=[feedback], app=app)
    assert (result.deleted, result.hard_deleted) == ({feedback.id}, set())


@both_kinds
@pytest.mark.parametrize("now", [True, False], ids=["this-sync", "earlier-sync"])
def test_deletion_propagates_to_the_second_level_where_morango_fails(hard: bool, now: bool) -> None:
    unit = build_store_row("unit", dirty=now, deleted=True, hard_deleted=hard)
    learner = build_store_row("learner", unit=unit)
    attempt = build_store_row("attempt", learner=learner)
    theirs, ours = both([unit, learner, attempt])
    assert theirs.aborted == "django.db.utils.IntegrityError"
    assert (ours.aborted, ours.errors) == (None, {})
    assert not any(ours.dirty.values())
    assert ours.deleted == {learner.id, attempt.id}
    assert ours.hard_deleted == ({learner.id, attempt.id} if hard else set())
    assert all(ours.serialized[row.id]["deleted"] for row in (learner, attempt))


@both_kinds
def test_record_of_a_target_noted_as_deleted_is_propagated_where_morango_fails(hard: bool) -> None:
    unit = build_store_row("unit", dirty=False)
    lesson = build_store_row("lesson", unit=unit)
    theirs, ours = both([unit, lesson], app=noted(unit, hard=hard))
    assert theirs.aborted == "django.db.utils.IntegrityError"
    assert (ours.aborted, ours.errors, ours.dirty[lesson.id]) == (None, {}, False)
    assert ours.deleted == {unit.id, lesson.id}
    assert ours.hard_deleted == ({unit.id, lesson.id} if hard else set())


def test_target_brought_back_by_the_sync_keeps_its_records() -> None:
    unit = build_store_row("unit")
    lesson = build_store_row("lesson", unit=unit)
    result = assert_same([unit, lesson], app=noted(unit))
    assert (result.ids("unit"), result.ids("lesson")) == ({unit.id}, {lesson.id})
    assert result.deleted == {unit.id}  # as Morango: the next serialization deletes it in the Store


def test_one_purged_target_purges_the_record() -> None:
    unit = build_store_row("unit")
    learner = build_store_row("learner", unit=unit, deleted=True)
    lesson = build_store_row("lesson", unit=unit, hard_deleted=True)
    attempt = build_store_row("attempt", learner=learner, lesson=lesson)
    rows = [unit, learner, lesson, attempt]
    result = assert_same_but_clean(rows, deleted=[learner, lesson], propagated=[attempt])
    assert (result.deleted, result.hard_deleted) == ({attempt.id}, {attempt.id})


def test_missing_target_counts_beside_a_deleted_one() -> None:
    unit = build_store_row("unit")
    learner = build_store_row("learner", unit=unit, deleted=True)
    attempt = build_store_row("attempt", learner=learner, lesson_id="ab" * 16)
    result = assert_same_but_clean([unit, learner, attempt], deleted=[learner])
    assert list(result.errors) == [attempt.id]
    assert result.deleted == {attempt.id}


def test_failed_target_counts_beside_a_deleted_one() -> None:
    unit = build_store_row("unit")
    learner = build_store_row("learner", unit=unit, deleted=True)
    lesson = build_store_row("lesson", unit=unit, title="")
    attempt = build_store_row("attempt", learner=learner, lesson=lesson)
    result = assert_same_but_clean([unit, learner, lesson, attempt], deleted=[learner])
    assert set(result.errors) == {lesson.id, attempt.id}


def test_invalid_record_of_a_deleted_target_is_in_error() -> None:
    unit = build_store_row("unit", deleted=True)
    lesson = build_store_row("lesson", unit=unit, title="")
    result = assert_same([unit, lesson])
    assert list(result.errors) == [lesson.id]
    assert result.deleted == set()


def test_deletion_propagates_through_a_nullable_foreign_key() -> None:
    region, home = build_zoo_row("region", deleted=True), build_zoo_row("region")
    person = build_zoo_row("person", home=home)
    card = build_zoo_row("card", person=person, issued_at=region)
    result = assert_same_but_clean([home, region, person, card], propagated=[card])
    assert (result.app["card"], result.deleted) == ([], {card.id})


def test_older_row_stays_until_the_next_serialization_when_nothing_cascades_to_it() -> None:
    region, home = build_zoo_row("region", deleted=True), build_zoo_row("region")
    person = build_zoo_row("person", home=home)
    card = build_zoo_row("card", person=person, issued_at=region)
    app = [existing(row) for row in (home, region, person, card)]
    result = assert_same_but_clean([home, region, person, card], propagated=[card], app=app)
    assert [row["issued_at_id"] for row in result.app["card"]] == [None]
    assert result.serialized[card.id]["deleted"] is True
