"""Rows that a filter covers, and counters of the database that it raises."""

from __future__ import annotations

import pytest
from morango.models.certificates import Filter

from tests.parity.serialization.harness import assert_same, database_counter, edited, unit
from tests.support.factories import SCHOOL_ID

OTHER = "ab" * 16


def test_only_rows_under_the_filter_are_serialized() -> None:
    here, elsewhere = unit(), unit(school_id=OTHER)
    result = assert_same([edited(here), edited(elsewhere)], filter=Filter(SCHOOL_ID))
    assert set(result.store) == {here.id}
    assert result.dirty("school_unit") == {elsewhere.id}


@pytest.mark.parametrize(
    "prefixes",
    ["{0}:units\n{0}\n{0}:u", "{0}\n{0}", "{0}\n{1}", "{1}:nothing\n{0}:units", "5", "{1}\n{0}", ""],
)
def test_overlapping_prefixes_serialize_each_row_once(prefixes: str) -> None:
    stored = [unit(), unit(school_id=OTHER)]
    rows = [edited(row) for row in (*stored, unit(), unit(school_id=OTHER))]
    sync_filter = Filter(prefixes.format(SCHOOL_ID, OTHER))
    result = assert_same(rows, stored, filter=sync_filter)
    assert result.counters
    raised = {row["partition"] for row in result.tables["morango_databasemaxcounter"].values()}
    assert raised == set(sync_filter)


@pytest.mark.parametrize("prefix", ["a_", "a%", "a\\", "a:", "A", "%", "_"])
def test_prefix_is_taken_literally(prefix: str) -> None:
    partitions = ["a_c", "a%c", "a\\c", "A:c", "a:", "abc", "%", "_"]
    assert assert_same([edited(unit(partition=name)) for name in partitions], filter=Filter(prefix)).counters


@pytest.mark.parametrize("prefixes", ["aa\nAA", "AA\naab", "aab\nAA\naA", "É\né"])
def test_prefixes_that_differ_in_case_serialize_each_row_once(prefixes: str) -> None:
    """SQLite compares so that they overlap."""
    partitions = ["aa:1", "AA:1", "aab", "AAB", "Aab", "É", "é"]
    rows = [edited(unit(partition=name), _morango_partition=name) for name in partitions]
    stored = [unit(id=row.id, partition=row._morango_partition) for row in rows[::2]]
    assert assert_same(rows, stored, filter=Filter(prefixes)).counters


def test_empty_filter_covers_everything() -> None:
    assert len(assert_same([edited(unit()), edited(unit(school_id=OTHER))], filter=Filter("")).counters) == 2


def test_filter_that_covers_nothing_raises_only_its_counter() -> None:
    result = assert_same([edited(unit())], filter=Filter(OTHER))
    assert not result.store
    assert [row["counter"] for row in result.tables["morango_databasemaxcounter"].values()] == [1]


def test_counters_of_other_prefixes_stay() -> None:
    counters = [database_counter(partition, 0) for partition in ("", SCHOOL_ID, f"{SCHOOL_ID}:units")]
    result = assert_same([edited(unit())], [], counters, filter=Filter(SCHOOL_ID))
    rows = result.tables["morango_databasemaxcounter"].values()
    raised = {row["partition"]: row["counter"] for row in rows}
    assert raised == {"": 0, SCHOOL_ID: 1, f"{SCHOOL_ID}:units": 0}
