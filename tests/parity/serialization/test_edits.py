"""App rows that were made, changed or changed on both sides since the last sync."""

from __future__ import annotations

import json

import pytest

from tests.parity.serialization.harness import (
    assert_same,
    database_counter,
    device,
    edited,
    record_counter,
    unit,
)
from tests.support.factories import SAVED_BY, SCHOOL_ID, build_store_row

OTHER = "ab" * 16


def test_new_row_becomes_a_record() -> None:
    row = edited(unit())
    result = assert_same([row])
    assert json.loads(result.store[row.id]["serialized"])["name"] == "Unit"
    assert result.counters == {row.id: 1}
    assert not result.dirty("school_unit")


def test_new_row_of_each_model_becomes_a_record() -> None:
    school = unit()
    learner = build_store_row("learner", unit=school)
    lesson = build_store_row("lesson", unit=school, opens_at="2026-01-02T03:04:05.678901Z")
    attempt = build_store_row("attempt", learner=learner, lesson=lesson)
    feedback = build_store_row("feedback", attempt=attempt)
    rows = [school, learner, lesson, attempt, feedback]
    assert set(assert_same([edited(row) for row in rows]).store) == {row.id for row in rows}


def test_clean_row_is_left_alone() -> None:
    stored, new = unit(), unit()
    result = assert_same([edited(stored, _morango_dirty_bit=False, name="unseen")], [stored])
    assert (result.store[stored.id]["serialized"], result.counters) == (stored.serialized, {})
    assert new.id not in assert_same([edited(new, _morango_dirty_bit=False)]).store


def test_edited_row_overwrites_its_record() -> None:
    stored = unit(columns={"last_transfer_session_id": OTHER})
    result = assert_same([edited(stored, name="here")], [stored]).store[stored.id]
    assert json.loads(result["serialized"])["name"] == "here"
    assert (result["last_saved_instance"], result["last_saved_counter"]) == (device(), 1)
    assert (result["last_transfer_session_id"], result["conflicting_serialized_data"]) == (None, "")


def test_new_and_edited_rows_are_serialized_together() -> None:
    stored = [unit() for _ in range(3)]
    rows = [*(edited(row, name="here") for row in stored), *(edited(unit()) for _ in range(3))]
    assert len(assert_same(rows, stored).counters) == 6


def test_conflict_keeps_the_synced_version() -> None:
    stored = unit(dirty=True, name="from afar")
    result = assert_same([edited(stored, name="here")], [stored]).store[stored.id]
    assert result["conflicting_serialized_data"] == stored.serialized + "\n"
    assert not result["dirty_bit"]


def test_conflicts_in_a_row_are_kept_newest_first() -> None:
    older = '{"name": "oldest"}\n{"name": "older"}\n'
    stored = unit(dirty=True, columns={"conflicting_serialized_data": older})
    result = assert_same([edited(stored)], [stored])
    assert result.store[stored.id]["conflicting_serialized_data"] == f"{stored.serialized}\n{older}"


def test_older_conflicts_stay_where_there_is_no_new_one() -> None:
    stored = unit(columns={"conflicting_serialized_data": "older\n"})
    result = assert_same([edited(stored)], [stored])
    assert result.store[stored.id]["conflicting_serialized_data"] == "older\n"


def test_error_of_the_store_row_stays() -> None:
    error = {"deserialization_error": "old", "deserialization_exception": "old.Error"}
    stored = unit(dirty=True, columns=error)
    result = assert_same([edited(stored)], [stored]).store[stored.id]
    assert (result["deserialization_error"], result["deserialization_exception"]) == ("old", "old.Error")


@pytest.mark.parametrize("dirty", [False, True])
@pytest.mark.parametrize("hard", [False, True])
def test_edit_brings_a_deleted_record_back(dirty: bool, hard: bool) -> None:
    stored = unit(dirty=dirty, deleted=True)
    row = edited(stored, name="here")
    stored.hard_deleted = hard
    stored.serialized = "{}" if hard else stored.serialized
    result = assert_same([row], [stored]).store[stored.id]
    assert json.loads(result["serialized"])["name"] == "here"
    assert not result["deleted"]
    assert not result["hard_deleted"]


def test_store_row_keeps_its_owner() -> None:
    """The app row's profile, model, partition and source id count for new rows alone."""
    stored = unit(partition="elsewhere", source_id="there", profile="other")
    stored.model_name = "lesson"
    row = edited(unit(id=stored.id), name="here")
    result = assert_same([row], [stored]).store[stored.id]
    about = [result[column] for column in ("partition", "source_id", "profile", "model_name")]
    assert about == ["elsewhere", "there", "other", "lesson"]


def test_parent_of_a_new_row_is_entered() -> None:
    parent, child = unit(), unit(parent_id=OTHER)
    store = assert_same([edited(parent), edited(child)]).store
    assert (store[parent.id]["_self_ref_fk"], store[child.id]["_self_ref_fk"]) == ("", OTHER)


@pytest.mark.parametrize(("old", "new"), [(None, OTHER), (OTHER, "cd" * 16), (OTHER, None)])
def test_parent_of_an_existing_record_stays_in_its_column(old: str | None, new: str | None) -> None:
    stored = unit(parent_id=old)
    result = assert_same([edited(stored, parent_id=new)], [stored]).store[stored.id]
    assert result["_self_ref_fk"] == (old or "")
    assert json.loads(result["serialized"])["parent_id"] == new


def test_only_the_records_own_counter_is_raised() -> None:
    """Ours is raised, that of another device stays, and that of another record too."""
    stored, clean = unit(), unit()
    counters = [
        record_counter(stored, 0),
        record_counter(stored, 7, SAVED_BY),
        record_counter(clean, 0),
    ]
    result = assert_same([edited(stored)], [stored, clean], counters)
    assert result.counters == {stored.id: 1, clean.id: 0}
    assert result.tables["morango_recordmaxcounter"][f"{stored.id} {SAVED_BY}"]["counter"] == 7


def test_only_the_databases_own_counter_is_raised() -> None:
    counters = [database_counter("", 0), database_counter("", 7, SAVED_BY), database_counter(SCHOOL_ID, 0)]
    result = assert_same([edited(unit())], [], counters).tables["morango_databasemaxcounter"]
    assert sorted(str(row["counter"]) for row in result.values()) == ["0", "1", "7"]


def test_counter_is_raised_even_if_there_is_nothing_to_do() -> None:
    result = assert_same(times=3)
    assert [row["counter"] for row in result.tables["morango_instanceidmodel"].values()] == [3]
    assert [row["counter"] for row in result.tables["morango_databasemaxcounter"].values()] == [3]


def test_second_serialization_finds_nothing() -> None:
    stored = unit(dirty=True)
    result = assert_same([edited(stored), edited(unit())], [stored], times=2)
    assert set(result.counters.values()) == {1}


def test_another_profile_is_left_alone() -> None:
    stored = unit(dirty=True)
    result = assert_same([edited(stored)], [stored], profile="model_zoo")
    assert result.dirty("school_unit") == {stored.id}
