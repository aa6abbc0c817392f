"""Records that a sync filter covers, and records that ``skip_erroring`` leaves out."""

from __future__ import annotations

import pytest
from morango.models.certificates import Filter

from tests.parity.harness import app_row, assert_same, assert_same_but_clean, both
from tests.support.comparison import existing
from tests.support.factories import SCHOOL_ID, build_store_row

OTHER = "ab" * 16
EARLIER = {"deserialization_error": "x", "deserialization_exception": "y"}


def test_only_records_under_the_filter_are_deserialized() -> None:
    here, elsewhere = build_store_row("unit"), build_store_row("unit", school_id=OTHER)
    result = assert_same([here, elsewhere], filter=Filter(SCHOOL_ID))
    assert result.ids("unit") == {here.id}


def test_only_records_under_the_filter_are_deleted() -> None:
    rows = [build_store_row("unit", deleted=True, school_id=school) for school in (SCHOOL_ID, OTHER)]
    result = assert_same(rows, app=[app_row(row) for row in rows], filter=Filter(SCHOOL_ID))
    assert result.ids("unit") == {rows[1].id}


def test_errors_of_records_outside_the_filter_stay() -> None:
    here = build_store_row("unit", columns=EARLIER)
    elsewhere = build_store_row("unit", school_id=OTHER, columns=EARLIER)
    result = assert_same([here, elsewhere], filter=Filter(SCHOOL_ID))
    assert result.errors == {elsewhere.id: ("x", "y")}


@pytest.mark.parametrize(
    "prefixes", ["{0}:units\n{0}\n{0}:u", "{0}\n{0}", "{0}\n{1}", "{1}:nothing\n{0}:units", "5"]
)
def test_overlapping_prefixes_deserialize_each_record_once(prefixes: str) -> None:
    rows = [build_store_row("unit"), build_store_row("unit", school_id=OTHER)]
    assert_same(rows, filter=Filter(prefixes.format(SCHOOL_ID, OTHER)))


@pytest.mark.parametrize("prefix", ["a_", "a%", "a\\", "a:", "A"])
def test_prefix_is_taken_literally(prefix: str) -> None:
    partitions = ["a_c", "a%c", "a\\c", "A:c", "a:", "abc"]
    rows = [build_store_row("unit", partition=partition) for partition in partitions]
    assert assert_same(rows, filter=Filter(prefix)).app["unit"]


def test_empty_filter_covers_everything() -> None:
    assert len(assert_same([build_store_row("unit")], filter=Filter("")).app["unit"]) == 1


def test_filter_that_covers_nothing_changes_nothing() -> None:
    assert assert_same([build_store_row("unit")], filter=Filter(OTHER)).app["unit"] == []


def test_record_with_a_clean_target_outside_the_filter_is_saved() -> None:
    unit = build_store_row("unit", dirty=False)
    learner = build_store_row("learner", unit=unit)
    other = build_store_row("learner", unit=unit)
    attempt = build_store_row("attempt", learner=learner)
    rows = [unit, learner, other, attempt]
    result = assert_same(rows, app=[existing(unit)], filter=Filter(learner.partition))
    assert (result.ids("learner"), result.ids("attempt")) == ({learner.id}, {attempt.id})


def test_target_deleted_outside_the_filter_deletes_the_record() -> None:
    unit = build_store_row("unit", deleted=True, school_id=OTHER)
    lesson = build_store_row("lesson", unit=unit)
    result = assert_same_but_clean([unit, lesson], propagated=[lesson], filter=Filter(SCHOOL_ID))
    assert (result.deleted, result.dirty) == ({lesson.id}, {unit.id: True})


def test_skip_erroring_leaves_records_in_error_out() -> None:
    broken = build_store_row("unit", columns=EARLIER)
    child = build_store_row("unit", parent=broken)
    empty = build_store_row("unit", columns={"deserialization_error": ""})
    result = assert_same([broken, child, empty], skip_erroring=True)
    assert result.errors[broken.id] == ("x", "y")
    assert result.errors[child.id][1] == "morango.errors.MorangoMissingParent"
    assert result.ids("unit") == {empty.id}


def test_skip_erroring_leaves_deletions_in_error_out_too() -> None:
    row = build_store_row("unit", columns=EARLIER, deleted=True)
    assert assert_same([row], app=[app_row(row)], skip_erroring=True).ids("unit") == {row.id}


def test_skip_erroring_records_new_errors() -> None:
    old = build_store_row("unit", columns=EARLIER)
    new = build_store_row("unit", name="")
    result = assert_same([old, new], skip_erroring=True)
    assert result.errors[old.id] == ("x", "y")
    assert "name" in (result.errors[new.id][0] or "")


def test_errors_are_tried_again_unless_skipped() -> None:
    assert assert_same([build_store_row("unit", columns=EARLIER)]).app["unit"]


@pytest.mark.parametrize("skip_erroring", [False, True])
def test_second_run_changes_nothing(skip_erroring: bool) -> None:
    unit = build_store_row("unit")
    orphan = build_store_row("lesson", unit_id=OTHER)
    broken = build_store_row("unit", name="")
    lesson = build_store_row("lesson", unit=unit)
    result = assert_same([unit, orphan, broken, lesson], skip_erroring=skip_erroring, times=2)
    assert set(result.errors) == {orphan.id, broken.id}


def test_failing_target_counts_if_errors_are_skipped_but_not_in_its_batch(
    batch_size: int,
) -> None:
    """Nothing tells its error from an older one; if its older version is there, that serves."""
    unit = build_store_row("unit", name="")
    lesson = build_store_row("lesson", unit=unit)
    app = [existing(unit, name="old")]
    theirs, ours = both([unit, lesson], app=app, skip_erroring=True, batch_sizes=[batch_size])
    assert set(theirs.errors) == {unit.id, lesson.id}
    if batch_size == 1:
        assert (list(ours.errors), ours.ids("lesson")) == ([unit.id], {lesson.id})
    else:
        assert ours == theirs
