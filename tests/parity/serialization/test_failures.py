"""Rows that can't be serialized: nothing is written at all, and the error names the row."""

from __future__ import annotations

from typing import Any

import pytest
from morango.models import DeletedModels, SyncableModel

from morango_celery.serialization import serialize_into_store
from tests.parity.serialization.harness import assert_equal, assert_same, both, edited, run, unit
from worker.school.models import PROFILE, Unit

ID = "12" * 16


class UnwillingError(Exception):
    pass


def _refuse(self: Unit) -> dict[str, Any]:
    if self.name == "bad":
        raise UnwillingError("not this one")
    data: dict[str, Any] = SyncableModel.serialize(self)
    return data


def _no_json(self: Unit) -> dict[str, Any]:
    data: dict[str, Any] = SyncableModel.serialize(self)
    return {**data, "name": object()} if self.name == "bad" else data


def _no_keys(self: Unit) -> dict[Any, Any]:
    data: dict[Any, Any] = SyncableModel.serialize(self)
    return {**data, (1, 2): 3} if self.name == "bad" else data


def _circular(self: Unit) -> dict[str, Any]:
    data: dict[str, Any] = SyncableModel.serialize(self)
    if self.name == "bad":
        data["self"] = data
    return data


@pytest.mark.parametrize("serialize", [_refuse, _no_json, _no_keys, _circular])
@pytest.mark.parametrize("is_stored", [False, True])
def test_row_that_fails_leaves_nothing_behind_and_is_named(
    serialize: Any, is_stored: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nothing is left but the instance's counter, as in Morango; the note is ours."""
    monkeypatch.setattr(Unit, "serialize", serialize)
    bad, stored, gone = unit(name="bad"), unit(), unit(dirty=True)
    app = [edited(stored, name="good"), edited(bad)]
    theirs, ours = both(
        app, [stored, gone, *([bad] if is_stored else [])], [DeletedModels(id=gone.id, profile=PROFILE)]
    )
    assert type(ours.aborted) is type(theirs.aborted)
    assert ours.aborted is not None
    assert ours.aborted.__notes__ == [f"While school.Unit {bad.id} was being serialized."]
    assert_equal(theirs, ours)
    assert (ours.counters, ours.dirty("school_unit")) == ({}, {stored.id, bad.id})


def test_all_that_was_written_is_rolled_back(monkeypatch: pytest.MonkeyPatch) -> None:
    """More rows than are written at a time, of which only the last one fails."""
    monkeypatch.setattr(Unit, "serialize", _refuse)
    monkeypatch.setattr("morango_celery.serialization.store.CHUNK_ROWS", 2)
    app = [edited(unit(name="bad" if number == 6 else "good")) for number in range(7)]
    outcome = run(serialize_into_store, app)
    assert isinstance(outcome.aborted, UnwillingError)
    assert (outcome.store, len(outcome.dirty("school_unit"))) == ({}, 7)


UNREADABLE = ["", "{", "{'a': 1}", '{"a": "\n"}', "[" * 100_000]
NO_OBJECTS = ["[]", "[1]", "null", "5", '"text"', "true"]


@pytest.mark.parametrize("stored", UNREADABLE, ids=lambda text: text[:9])
@pytest.mark.parametrize("dirty", [False, True])
def test_edit_of_what_the_store_has_unreadably_is_stored_where_morango_fails(
    stored: str, dirty: bool
) -> None:
    app = [edited(unit(id=ID), name="here"), edited(unit())]
    theirs, ours = both(app, [unit(id=ID, serialized=stored, dirty=dirty)])
    assert isinstance(theirs.aborted, (ValueError, RecursionError))
    assert ours.aborted is None
    assert ours.store[ID]["serialized"] == assert_same(app).store[ID]["serialized"]
    assert ours.store[ID]["conflicting_serialized_data"] == (f"{stored}\n" if dirty else "")
    assert set(ours.counters) == {row.id for row in app}
    assert not ours.dirty("school_unit")


@pytest.mark.parametrize("stored", NO_OBJECTS)
def test_edit_of_what_the_store_has_as_no_object_is_stored_where_morango_fails(stored: str) -> None:
    app = [edited(unit(id=ID), name="here")]
    theirs, ours = both(app, [unit(id=ID, serialized=stored)])
    assert isinstance(theirs.aborted, AttributeError)
    assert ours.store[ID]["serialized"] == assert_same(app).store[ID]["serialized"]
