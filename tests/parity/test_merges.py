"""Local edits and synced versions of one record, and their state after a run."""

from __future__ import annotations

import json
from typing import Any

import pytest
from morango.models import DeletedModels, RecordMaxCounter

from morango_celery import deserialize_from_store
from tests.model_zoo.rows import build_zoo_row
from tests.parity.harness import app_row, assert_same, both
from tests.support.comparison import existing, run
from tests.support.factories import SAVED_BY, build_store_row

CONFLICT = '{"name": "an older version"}\n'


def name_in(serialized: dict[str, Any]) -> str:
    name: str = json.loads(serialized["serialized"])["name"]
    return name


def test_merge_conflict_stays_noted_in_the_store() -> None:
    row = build_store_row("unit", columns={"conflicting_serialized_data": CONFLICT})
    result = assert_same([row], app=[existing(row, name="old")])
    assert result.serialized[row.id]["conflicting_serialized_data"] == CONFLICT


def test_merge_conflict_of_a_purged_record_is_forgotten() -> None:
    gone = build_store_row("unit", hard_deleted=True, columns={"conflicting_serialized_data": CONFLICT})
    result = assert_same([gone], app=[app_row(gone)])
    assert (result.app["unit"], result.serialized[gone.id]["hard_deleted"]) == ([], True)


def test_merge_conflict_of_a_record_that_goes_with_a_purged_one_is_forgotten() -> None:
    unit = build_store_row("unit", hard_deleted=True)
    lesson = build_store_row("lesson", unit=unit, columns={"conflicting_serialized_data": CONFLICT})
    for database in both([unit, lesson]):
        assert database.serialized[lesson.id]["conflicting_serialized_data"] == ""
        assert database.serialized[lesson.id]["serialized"] == "{}"


def test_counters_stay_as_they_were() -> None:
    row = build_store_row("unit", last_saved_counter=41)
    counter = RecordMaxCounter(store_model_id=row.id, instance_id=SAVED_BY, counter=41)
    result = assert_same([row], app=[counter])
    assert result.serialized[row.id]["saved_here"] is False
    assert result.counted == {(row.id, False)}


def test_clean_record_with_a_local_edit_is_serialized_later() -> None:
    row, other = build_store_row("unit", dirty=False, name="synced"), build_store_row("unit")
    edited = existing(row, name="edited here", _morango_dirty_bit=True)
    result = assert_same([row, other], app=[edited])
    assert name_in(result.serialized[row.id]) == "edited here"
    assert (row.id, True) in result.counted


def test_local_edit_wins_and_the_next_serialization_merges_it() -> None:
    row = build_store_row("unit", name="synced", columns={"conflicting_serialized_data": CONFLICT})
    edited = existing(row, name="edited here", _morango_dirty_bit=True)
    theirs, ours = both([row], app=[edited])
    assert name_in(theirs.serialized[row.id]) == "synced"
    assert name_in(ours.serialized[row.id]) == "edited here"
    assert ours.serialized[row.id]["conflicting_serialized_data"] == f"{row.serialized}\n{CONFLICT}"
    assert (ours.serialized[row.id]["dirty_bit"], ours.serialized[row.id]["saved_here"]) == (False, True)
    assert (ours.counted, theirs.counted) == ({(row.id, True)}, set())


def test_keys_that_this_version_does_not_know_survive_the_merge() -> None:
    row = build_store_row("unit", name="synced", from_the_future=1)
    edited = existing(row, name="edited here", _morango_dirty_bit=True)
    ours = run(deserialize_from_store, [row], app=[edited])
    assert json.loads(ours.serialized[row.id]["serialized"])["from_the_future"] == 1


@pytest.mark.parametrize("model_name", ["unit", "lesson", "learner"])
def test_local_edit_wins_over_a_deletion_and_brings_the_record_back(model_name: str) -> None:
    unit = build_store_row("unit", dirty=False)
    fields = {} if model_name == "unit" else {"unit": unit}
    row = build_store_row(model_name, deleted=True, **fields)
    app = [existing(unit), existing(row, _morango_dirty_bit=True)]
    theirs, ours = both([unit, row], app=app)
    assert row.id not in theirs.ids(model_name)
    assert (row.id in ours.ids(model_name), ours.dirty[row.id]) == (True, True)
    assert theirs.serialized[row.id]["deleted"] is True
    assert ours.serialized[row.id]["deleted"] is False


def test_local_edit_of_a_target_that_was_deleted_keeps_what_refers_to_it() -> None:
    unit = build_store_row("unit", deleted=True)
    lesson = build_store_row("lesson", unit=unit)
    theirs, ours = both([unit, lesson], app=[existing(unit, _morango_dirty_bit=True)])
    assert (theirs.app["lesson"], theirs.deleted) == ([], {lesson.id})
    assert (ours.ids("unit"), ours.ids("lesson"), ours.deleted) == ({unit.id}, {lesson.id}, set())


def test_local_edit_wins_over_a_version_that_is_not_valid() -> None:
    row = build_store_row("unit", name="")
    result = assert_same([row], app=[existing(row, name="edited here", _morango_dirty_bit=True)])
    assert name_in(result.serialized[row.id]) == "edited here"


def test_child_of_an_edited_row_with_an_invalid_newer_version_is_in_error() -> None:
    top = build_store_row("unit", name="")
    child = build_store_row("unit", parent=top)
    edited = existing(top, name="edited here", _morango_dirty_bit=True)
    errors = assert_same([child, top], app=[edited]).errors
    assert errors[child.id] == (
        "Parent is dirty; could not deserialize.",
        "morango.errors.MorangoDirtyParent",
    )


def test_local_edit_of_a_row_that_spans_tables_wins() -> None:
    row = build_zoo_row("lorry", plate="A 1", load_kg=1)
    theirs, ours = both([row], app=[existing(row, load_kg=2, _morango_dirty_bit=True)])
    assert [lorry["load_kg"] for lorry in theirs.app["lorry"]] == [1]
    assert [lorry["load_kg"] for lorry in ours.app["lorry"]] == [2]


def test_edit_back_to_the_synced_version_is_none() -> None:
    row = build_zoo_row("lorry", plate="A 1")
    result = assert_same([row], app=[existing(row, _morango_dirty_bit=True)])
    assert result.app["lorry"][0]["_morango_dirty_bit"] is False


def test_record_deleted_here_and_changed_elsewhere_comes_back_until_the_next_serialization() -> None:
    """Morango's rule: a record that was deleted here is deleted, even if a newer version came since."""
    row = build_store_row("unit")
    result = assert_same([row], app=[DeletedModels(id=row.id, profile=row.profile)])
    assert result.ids("unit") == {row.id}
    assert result.serialized[row.id]["deleted"] is True
