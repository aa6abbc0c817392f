"""Multi-table inheritance: records with a row in each of two tables."""

from __future__ import annotations

import pytest

from tests.model_zoo.models import Lorry
from tests.model_zoo.rows import build_zoo_row
from tests.parity.harness import assert_same, both
from tests.support.comparison import existing

OTHER = "ab" * 16
HOME = build_zoo_row("region", dirty=False)
OWNER = build_zoo_row("person", home=HOME, dirty=False)
THERE = [existing(HOME), existing(OWNER)]


def test_new_row_is_inserted_in_both_tables() -> None:
    lorry = build_zoo_row("lorry", plate="A 1", owner=OWNER)
    result = assert_same([HOME, OWNER, lorry], app=THERE)
    assert [(row["plate"], row["load_kg"], row["owner_id"]) for row in result.app["lorry"]] == [
        ("A 1", 900, OWNER.id)
    ]
    assert [(row["id"], row["plate"]) for row in result.app["vehicle"]] == [(lorry.id, "A 1")]


def test_both_tables_are_updated() -> None:
    lorry = build_zoo_row("lorry", plate="NEW", load_kg=7)
    result = assert_same([lorry], app=[existing(lorry, plate="OLD", load_kg=5)])
    assert [(row["plate"], row["load_kg"]) for row in result.app["lorry"]] == [("NEW", 7)]


@pytest.mark.parametrize("hard", [False, True])
def test_both_rows_are_deleted(hard: bool) -> None:
    lorry = build_zoo_row("lorry", plate="A 1", deleted=True)
    lorry.hard_deleted = hard
    result = assert_same([lorry], app=[existing(lorry)])
    assert (result.app["lorry"], result.app["vehicle"], result.dirty) == ([], [], {lorry.id: False})


def test_owner_of_the_same_sync_is_saved_first() -> None:
    owner = build_zoo_row("person", home=HOME)
    lorry = build_zoo_row("lorry", plate="A 1", owner=owner)
    assert assert_same([lorry, owner, HOME], app=[existing(HOME)]).ids("lorry") == {lorry.id}


def test_missing_owner_fails_the_record_alone() -> None:
    """Because of the parent link, a lorry counts as a record of a tree, and the words are Django's."""
    lorry = build_zoo_row("lorry", plate="A 1", owner_id=OTHER)
    good = build_zoo_row("lorry", plate="A 2")
    result = assert_same([lorry, good])
    wording = Lorry._meta.get_field("owner").error_messages["invalid"]
    assert result.errors == {
        lorry.id: (
            str({"owner": [wording % {"model": "person", "field": "id", "value": OTHER}]}),
            "django.core.exceptions.ValidationError",
        )
    }
    assert result.ids("vehicle") == {good.id}


@pytest.mark.parametrize("hard", [False, True])
def test_deleted_owner_deletes_the_record(hard: bool) -> None:
    owner = build_zoo_row("person", home=HOME, deleted=True, dirty=False, hard_deleted=hard)
    lorry = build_zoo_row("lorry", plate="A 1", owner=owner)
    result = assert_same([HOME, owner, lorry], app=[existing(HOME)])
    assert (list(result.errors), result.deleted, result.app["vehicle"]) == ([lorry.id], set(), [])


def test_owners_deletion_cascades_to_both_tables() -> None:
    owner = build_zoo_row("person", home=HOME)
    lorry = build_zoo_row("lorry", plate="A 1", owner=owner, dirty=False)
    app = [existing(HOME), existing(owner), existing(lorry)]
    owner.deleted = True
    theirs, ours = both([HOME, owner, lorry], app=app)
    assert ours.app == theirs.app
    assert (ours.app["lorry"], ours.app["vehicle"]) == ([], [])


def test_invalid_owner_fails_the_record() -> None:
    owner = build_zoo_row("person", home=HOME, name="")
    lorry = build_zoo_row("lorry", plate="A 1", owner=owner)
    assert set(assert_same([HOME, owner, lorry], app=[existing(HOME)]).errors) == {owner.id, lorry.id}


def test_value_taken_in_the_parents_table_is_an_error() -> None:
    there = build_zoo_row("lorry", plate="A 1", dirty=False)
    lorry = build_zoo_row("lorry", plate="A 1")
    good = build_zoo_row("lorry", plate="A 2")
    result = assert_same([lorry, there, good], app=[existing(there)])
    assert result.errors[lorry.id][1] == "django.db.utils.IntegrityError"
    assert (list(result.errors), result.ids("vehicle")) == ([lorry.id], {there.id, good.id})


def test_plate_of_a_deleted_row_is_free() -> None:
    gone = build_zoo_row("lorry", plate="A 1", deleted=True)
    lorry = build_zoo_row("lorry", plate="A 1")
    assert assert_same([gone, lorry], app=[existing(gone)]).ids("vehicle") == {lorry.id}


@pytest.mark.parametrize("fields", [{"plate": ""}, {"plate": None}, {"load_kg": "much"}, {"load_kg": -1}])
def test_column_of_either_table_is_not_valid(fields: dict[str, object]) -> None:
    arguments = {"plate": "A 1", **fields}
    lorry, good = build_zoo_row("lorry", **arguments), build_zoo_row("lorry", plate="A 2")
    assert list(assert_same([lorry, good]).errors) == [lorry.id]


def test_record_without_the_parent_link_is_treated_alike() -> None:
    lorry = build_zoo_row("lorry", plate="A 1")
    lorry.serialized = lorry.serialized.replace(f'"vehicle_ptr_id": "{lorry.id}", ', "")
    assert "vehicle_ptr_id" not in lorry.serialized
    assert_same([lorry, build_zoo_row("lorry", plate="A 2")])


def test_record_as_morango_serializes_it_is_its_own_parent_and_stays_in_error() -> None:
    """Morango takes the parent link for a reference to a record of the same kind: to the record itself."""
    lorry = build_zoo_row("lorry", plate="A 1")
    lorry._self_ref_fk = lorry.id
    assert assert_same([lorry]).errors == {
        lorry.id: ("Parent is dirty; could not deserialize.", "morango.errors.MorangoDirtyParent")
    }


def test_local_row_is_serialized() -> None:
    lorry, synced = build_zoo_row("lorry", plate="A 1"), build_zoo_row("lorry", plate="A 2")
    result = assert_same([synced], app=[existing(lorry, _morango_dirty_bit=True)])
    assert result.serialized[lorry.id]["_self_ref_fk"] == lorry.id
