"""Records that refer to records of their own kind: parents first, and no child without its parent."""

from __future__ import annotations

import pytest
from morango.models import Store
from morango.models.certificates import Filter

from morango_celery import deserialize_from_store
from tests.parity.harness import app_row, assert_same
from tests.support.comparison import existing
from tests.support.factories import SCHOOL_ID, build_store_row
from worker.school.models import PROFILE

OTHER = "ab" * 16
DIRTY_PARENT = ("Parent is dirty; could not deserialize.", "morango.errors.MorangoDirtyParent")
MISSING_PARENT = (
    "Parent does not exist in Store; could not deserialize.",
    "morango.errors.MorangoMissingParent",
)
EARLIER = {"deserialization_error": "x", "deserialization_exception": "y"}


def chain_of(length: int) -> list[Store]:
    chain = [build_store_row("unit")]
    while len(chain) < length:
        chain.append(build_store_row("unit", parent=chain[-1]))
    return chain


def test_three_levels_are_saved_in_any_order() -> None:
    top, middle, bottom = chain_of(3)
    for order in ([bottom, middle, top], [middle, bottom, top], [top, bottom, middle]):
        assert len(assert_same(order).app["unit"]) == 3


def test_chain_of_60_is_saved() -> None:
    chain = chain_of(60)
    assert len(assert_same(chain[1::2] + chain[-2::-2]).app["unit"]) == 60


def test_node_with_many_children_is_saved() -> None:
    top = build_store_row("unit")
    wide = [build_store_row("unit", parent=top) for _ in range(20)]
    assert len(assert_same([*wide, top]).app["unit"]) == 21


def test_parents_go_before_their_children() -> None:
    for row in reversed(chain_of(6)):
        row.save(force_insert=True)
    run = deserialize_from_store(PROFILE)
    assert (run.saved, run.failed, run.pass_number) == (6, 0, 1)


def test_clean_parent_counts() -> None:
    top = build_store_row("unit", dirty=False)
    child = build_store_row("unit", parent=top)
    assert child.id in assert_same([top, child], app=[app_row(top)]).ids("unit")


def test_subtree_moves() -> None:
    old, new = build_store_row("unit", dirty=False), build_store_row("unit")
    moved = build_store_row("unit", parent=new)
    below = build_store_row("unit", parent=moved, dirty=False)
    app = [existing(old), existing(moved, parent_id=old.id), existing(below)]
    result = assert_same([below, moved, new, old], app=app)
    assert {row["id"]: row["parent_id"] for row in result.app["unit"]}[moved.id] == new.id


def test_parent_and_child_change_places() -> None:
    top = build_store_row("unit")
    bottom = build_store_row("unit")
    top = build_store_row("unit", id=top.id, source_id=top.source_id, parent=bottom)
    app = [existing(top, parent_id=None), existing(bottom, parent_id=top.id)]
    result = assert_same([top, bottom], app=app)
    assert {row["id"]: row["parent_id"] for row in result.app["unit"]} == {
        top.id: bottom.id,
        bottom.id: None,
    }


def test_orphan_and_its_descendants_are_in_error() -> None:
    orphan = build_store_row("unit", parent_id=OTHER)
    grandchild = build_store_row("unit", parent=orphan)
    errors = assert_same([orphan, grandchild]).errors
    assert errors == {orphan.id: MISSING_PARENT, grandchild.id: DIRTY_PARENT}


def test_orphan_whose_row_exists_keeps_it() -> None:
    orphan = build_store_row("unit", parent_id=OTHER, name="new")
    result = assert_same([orphan], app=[existing(orphan, parent_id=None, name="old")])
    assert (result.app["unit"][0]["name"], result.errors) == ("old", {orphan.id: MISSING_PARENT})


def test_invalid_parent_fails_its_descendants() -> None:
    top = build_store_row("unit", name=None)
    child = build_store_row("unit", parent=top)
    grandchild = build_store_row("unit", parent=child, name=None)
    errors = assert_same([top, child, grandchild]).errors
    assert "name" in (errors[top.id][0] or "")
    assert (errors[child.id], errors[grandchild.id]) == (DIRTY_PARENT, DIRTY_PARENT)


def test_refused_parent_fails_its_children() -> None:
    top, refused, child = chain_of(3)
    refused.serialized = refused.serialized.replace(f'"school_id": "{SCHOOL_ID}"', '"school_id": "short"')
    result = assert_same([child, refused, top])
    assert result.errors[refused.id][1] == "builtins.ValueError"
    assert result.errors[child.id] == DIRTY_PARENT
    assert result.ids("unit") == {top.id}


def test_parent_with_an_invalid_newer_version_fails_its_children() -> None:
    top = build_store_row("unit", name=None)
    child = build_store_row("unit", parent=top)
    result = assert_same([top, child], app=[app_row(top)])
    assert (result.errors[child.id], result.ids("unit")) == (DIRTY_PARENT, {top.id})


def test_skipped_parent_in_error_is_missing_to_its_children() -> None:
    top = build_store_row("unit", columns=EARLIER)
    child = build_store_row("unit", parent=top)
    assert assert_same([top, child], skip_erroring=True).errors == {
        top.id: ("x", "y"),
        child.id: MISSING_PARENT,
    }


@pytest.mark.parametrize("mended", [True, False])
def test_parent_that_failed_in_an_earlier_run_is_tried_again(mended: bool) -> None:
    top = build_store_row("unit", columns=EARLIER, name="sound" if mended else "")
    child = build_store_row("unit", columns=EARLIER, parent=top)
    result = assert_same([child, top])
    assert (child.id in result.ids("unit")) is mended
    assert result.errors.get(child.id) == (None if mended else DIRTY_PARENT)


def test_absent_parent_outside_the_filter_is_missing() -> None:
    parent = build_store_row("unit", partition=f"{OTHER}:units")
    child = build_store_row("unit", parent=parent)
    result = assert_same([parent, child], filter=Filter(SCHOOL_ID))
    assert result.errors == {child.id: MISSING_PARENT}


def test_parent_of_another_model_is_missing() -> None:
    unit = build_store_row("unit", dirty=False)
    learner = build_store_row("learner", unit=unit, dirty=False)
    child = build_store_row("unit", parent=learner)
    result = assert_same([unit, learner, child], app=[existing(unit), existing(learner)])
    assert result.errors == {child.id: MISSING_PARENT}


def test_cycle_of_two_and_records_below_it_are_in_error() -> None:
    one = build_store_row("unit")
    other = build_store_row("unit", parent=one)
    one._self_ref_fk = other.id
    beneath = build_store_row("unit", parent=other)
    errors = assert_same([one, other, beneath]).errors
    assert errors == dict.fromkeys((one.id, other.id, beneath.id), DIRTY_PARENT)


def test_record_that_is_its_own_parent_is_in_error() -> None:
    row = build_store_row("unit")
    row._self_ref_fk = row.id
    assert assert_same([row]).errors == {row.id: DIRTY_PARENT}


@pytest.mark.parametrize("hard", [False, True])
@pytest.mark.parametrize("there", [False, True])
def test_deleted_record_of_a_tree_loses_its_row(hard: bool, there: bool) -> None:
    row = build_store_row("unit", deleted=True, hard_deleted=hard)
    result = assert_same([row], app=[app_row(row)] if there else [])
    assert (result.app["unit"], result.deleted, result.dirty[row.id]) == ([], set(), False)


def test_deleted_subtree_loses_its_rows() -> None:
    top = build_store_row("unit", deleted=True)
    child = build_store_row("unit", parent=top, deleted=True)
    app = [existing(top), existing(child)]
    assert assert_same([child, top], app=app).app["unit"] == []


@pytest.mark.parametrize("there", [False, True])
@pytest.mark.parametrize("deleted_now", [True, False])
def test_child_of_a_deleted_parent_is_in_error(deleted_now: bool, there: bool) -> None:
    """Deletions don't propagated in a tree: the missing parent fails the child's validation first."""
    top = build_store_row("unit", deleted=True, dirty=deleted_now)
    child = build_store_row("unit", parent=top)
    grandchild = build_store_row("unit", parent=child)
    rows = [grandchild, child, top]
    app = [existing(row) for row in rows[::-1]] if there and deleted_now else []
    result = assert_same(rows, app=app)
    assert result.errors[child.id][1] == "django.core.exceptions.ValidationError"
    assert result.errors[grandchild.id] == DIRTY_PARENT
    assert (result.app["unit"], result.deleted) == ([], set())


def test_child_leaves_a_parent_that_is_deleted() -> None:
    old, new = build_store_row("unit", deleted=True), build_store_row("unit")
    child = build_store_row("unit", parent=new, name="moved")
    app = [existing(old), existing(child, parent_id=old.id)]
    result = assert_same([child, old, new], app=app)
    assert result.ids("unit") == {new.id, child.id}


def test_order_is_that_of_the_stores_column_and_the_reference_that_of_the_record() -> None:
    """Only the JSON names the parent: so it must be there already, or happen to come first."""
    top = build_store_row("unit")
    child = build_store_row("unit", parent=top)
    child._self_ref_fk = ""
    result = assert_same([top, child])
    assert result.app["unit"][0]["parent_id"] != result.app["unit"][1]["parent_id"]
    top.dirty_bit = False
    assert list(assert_same([top, child]).errors) == [child.id]


def test_only_the_stores_column_names_the_parent() -> None:
    top = build_store_row("unit")
    child = build_store_row("unit")
    child._self_ref_fk = top.id
    assert {row["parent_id"] for row in assert_same([child, top]).app["unit"]} == {None}


@pytest.mark.parametrize("serialized", ["null", "[]", "5", '"text"', "{"])
def test_parent_that_is_amiss_counts_before_json_that_is(serialized: str) -> None:
    own, orphan = (build_store_row("unit", serialized=serialized) for _ in range(2))
    own._self_ref_fk, orphan._self_ref_fk = own.id, "ab" * 16
    assert set(assert_same([own, orphan]).errors) == {own.id, orphan.id}
