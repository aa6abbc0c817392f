"""Deletions and purges since the last sync."""

from __future__ import annotations

import pytest
from morango.models import DeletedModels, HardDeletedModels
from morango.models.certificates import Filter

from tests.parity.serialization.harness import assert_same, edited, record_counter, unit
from tests.support.factories import SAVED_BY
from worker.school.models import PROFILE

UNKNOWN = "ab" * 16
NOTES = [DeletedModels, HardDeletedModels]


def test_noted_deletion_marks_its_record_alone() -> None:
    stored, kept = unit(dirty=True), unit(dirty=True)
    result = assert_same([], [stored, kept], [DeletedModels(id=stored.id, profile=PROFILE)])
    assert [bool(result.store[row.id]["deleted"]) for row in (stored, kept)] == [True, False]
    assert [bool(result.store[row.id]["dirty_bit"]) for row in (stored, kept)] == [False, True]
    assert result.store[stored.id]["serialized"] == stored.serialized
    assert result.counters == {stored.id: 1}
    assert not result.tables["morango_deletedmodels"]


def test_deletion_raises_the_records_own_counter() -> None:
    """Ours is raised where it is there, added where it isn't, and that of another device stays."""
    rows = [unit() for _ in range(3)]
    counters = [record_counter(rows[0], 0), record_counter(rows[1], 7, SAVED_BY), record_counter(rows[2], 0)]
    notes = [DeletedModels(id=row.id, profile=PROFILE) for row in rows[:2]]
    result = assert_same([], rows, [*counters, *notes])
    assert result.counters == {rows[0].id: 1, rows[1].id: 1, rows[2].id: 0}


def test_hard_deletion_empties_the_record() -> None:
    stored = unit(dirty=True, columns={"conflicting_serialized_data": "older\n"})
    notes = [note(id=stored.id, profile=PROFILE) for note in NOTES]
    result = assert_same([], [stored], notes)
    emptied = result.store[stored.id]
    assert (emptied["serialized"], emptied["conflicting_serialized_data"]) == ("{}", "")
    assert (bool(emptied["deleted"]), bool(emptied["hard_deleted"])) == (True, True)
    assert not result.tables["morango_harddeletedmodels"]


def test_hard_deletion_without_a_deletion_is_not_a_deletion() -> None:
    stored = unit(dirty=True)
    result = assert_same([], [stored], [HardDeletedModels(id=stored.id, profile=PROFILE)])
    assert not result.store[stored.id]["deleted"]
    assert result.store[stored.id]["dirty_bit"]
    assert not result.counters


@pytest.mark.parametrize("note", NOTES)
def test_deletion_of_an_unknown_record_is_dropped(note: type[DeletedModels]) -> None:
    result = assert_same([], [unit()], [note(id=UNKNOWN, profile=PROFILE)])
    assert not result.tables[note._meta.db_table]
    assert not result.counters


@pytest.mark.parametrize("note", NOTES)
def test_deletion_of_another_profile_waits(note: type[DeletedModels]) -> None:
    stored = unit()
    result = assert_same([], [stored], [note(id=stored.id, profile="model_zoo")])
    assert list(result.tables[note._meta.db_table]) == [stored.id]
    assert not result.store[stored.id]["deleted"]


@pytest.mark.parametrize("note", NOTES)
def test_deletion_of_another_profile_waits_beside_one_of_this(note: type[DeletedModels]) -> None:
    stored, other = unit(), unit()
    notes = [note(id=stored.id, profile=PROFILE), note(id=other.id, profile="model_zoo")]
    result = assert_same([], [stored, other], notes)
    assert list(result.tables[note._meta.db_table]) == [other.id]


@pytest.mark.parametrize("note", NOTES)
def test_deletion_counts_whatever_the_store_row_says_of_its_profile(note: type[DeletedModels]) -> None:
    stored = unit(profile="model_zoo")
    result = assert_same([], [stored], [note(id=stored.id, profile=PROFILE)])
    assert result.store[stored.id]["deleted" if note is DeletedModels else "hard_deleted"]


def test_deletions_go_beyond_the_filter() -> None:
    stored = unit()
    result = assert_same(
        [], [stored], [note(id=stored.id, profile=PROFILE) for note in NOTES], filter=Filter(UNKNOWN)
    )
    assert result.store[stored.id]["hard_deleted"]


@pytest.mark.parametrize("is_stored", [False, True])
def test_row_that_was_deleted_and_made_again_is_deleted(is_stored: bool) -> None:
    stored = unit()
    notes = [DeletedModels(id=stored.id, profile=PROFILE)]
    result = assert_same([edited(stored, name="again")], [stored] if is_stored else [], notes)
    assert result.store[stored.id]["deleted"]
    assert result.counters == {stored.id: 1}
    assert not result.dirty("school_unit")


def test_deletions_of_more_than_a_statement_are_all_serialized() -> None:
    stored = [unit() for _ in range(1100)]
    result = assert_same([], stored, [DeletedModels(id=row.id, profile=PROFILE) for row in stored])
    assert all(row["deleted"] for row in result.store.values())
    assert len(result.counters) == 1100
