"""Deletions and saves of related records in one sync: deletions come first, kind by kind."""

from __future__ import annotations

from tests.model_zoo.rows import build_zoo_row
from tests.parity.harness import assert_same, assert_same_but_clean
from tests.support.comparison import existing
from tests.support.factories import build_store_row


def test_record_that_leaves_a_deleted_target_is_kept() -> None:
    old, new = build_store_row("unit", deleted=True), build_store_row("unit")
    lesson = build_store_row("lesson", unit=new)
    app = [existing(old), existing(lesson, unit_id=old.id)]
    result = assert_same([lesson, old, new], app=app)
    assert [(row["id"], row["unit_id"]) for row in result.app["lesson"]] == [(lesson.id, new.id)]


def test_rows_of_a_record_that_leaves_go_with_the_old_row() -> None:
    """The cascade takes rows that the sync doesn't bring again, as with Morango."""
    old, new = build_store_row("unit", deleted=True), build_store_row("unit")
    learner = build_store_row("learner", unit=new)
    lost = build_store_row("attempt", learner=learner, dirty=False)
    kept = build_store_row("attempt", learner=learner)
    app = [existing(old), existing(learner, unit_id=old.id), existing(lost), existing(kept)]
    result = assert_same([old, new, learner, lost, kept], app=app)
    assert (result.ids("learner"), result.ids("attempt")) == ({learner.id}, {kept.id})


def test_record_below_a_target_is_saved_beside_a_deleted_one() -> None:
    unit = build_store_row("unit")
    gone = build_store_row("lesson", unit=unit, deleted=True)
    new = build_store_row("lesson", unit=unit)
    app = [existing(unit), existing(gone)]
    result = assert_same_but_clean([new, gone, unit], deleted=[gone], app=app)
    assert result.ids("lesson") == {new.id}


def test_record_is_deleted_while_its_target_changes() -> None:
    unit = build_store_row("unit", name="new")
    gone = build_store_row("lesson", unit=unit, deleted=True)
    result = assert_same_but_clean(
        [gone, unit], deleted=[gone], app=[existing(unit, name="old"), existing(gone)]
    )
    assert (result.app["unit"][0]["name"], result.app["lesson"]) == ("new", [])


def test_nullable_reference_to_a_deleted_target_is_cleared() -> None:
    unit = build_store_row("unit")
    learner = build_store_row("learner", unit=unit)
    gone = build_store_row("lesson", unit=unit, deleted=True)
    attempt = build_store_row("attempt", learner=learner, lesson_id=None)
    app = [existing(row) for row in (unit, learner, gone)] + [existing(attempt, lesson_id=gone.id)]
    rows = [attempt, gone, learner, unit]
    result = assert_same_but_clean(rows, deleted=[gone], app=app)
    assert [row["lesson_id"] for row in result.app["attempt"]] == [None]


def test_reference_is_set_to_null_by_a_deletion() -> None:
    home, gone = build_zoo_row("region"), build_zoo_row("region", deleted=True)
    person = build_zoo_row("person", home=home)
    card = build_zoo_row("card", person=person, issued_at=gone, dirty=False)
    app = [existing(row) for row in (home, gone, person, card)]
    result = assert_same([home, gone, person, card], app=app)
    assert [(row["issued_at_id"], row["_morango_dirty_bit"]) for row in result.app["card"]] == [(None, False)]


def test_reference_set_to_null_by_a_deletion_gets_its_new_target() -> None:
    home, gone = build_zoo_row("region"), build_zoo_row("region", deleted=True)
    person = build_zoo_row("person", home=home)
    card = build_zoo_row("card", person=person, issued_at=home)
    app = [existing(row) for row in (home, gone, person)] + [existing(card, issued_at_id=gone.id)]
    result = assert_same([card, gone, person, home], app=app)
    assert [row["issued_at_id"] for row in result.app["card"]] == [home.id]


def test_locally_edited_row_loses_its_reference_to_a_deletion() -> None:
    home, gone = build_zoo_row("region"), build_zoo_row("region", deleted=True)
    person = build_zoo_row("person", home=home)
    card = build_zoo_row("card", person=person, issued_at=gone, dirty=False)
    app = [existing(row) for row in (home, gone, person)]
    result = assert_same([home, gone, person, card], app=[*app, existing(card, _morango_dirty_bit=True)])
    assert '"issued_at_id": null' in result.serialized[card.id]["serialized"]


def test_record_deleted_here_and_elsewhere_is_deleted_once() -> None:
    unit = build_store_row("unit", dirty=False)
    learner = build_store_row("learner", unit=unit, dirty=False)
    first = build_store_row("attempt", learner=learner, deleted=True)
    second = build_store_row("feedback", attempt=first, deleted=True)
    app = [existing(row) for row in (unit, learner, first, second)]
    result = assert_same_but_clean([unit, learner, second, first], deleted=[first, second], app=app)
    assert (result.app["attempt"], result.app["feedback"], result.deleted) == ([], [], set())


def test_record_comes_back_that_was_deleted() -> None:
    unit = build_store_row("unit", dirty=False)
    lesson = build_store_row("lesson", unit=unit)
    result = assert_same([unit, lesson], app=[existing(unit)])
    assert result.ids("lesson") == {lesson.id}
