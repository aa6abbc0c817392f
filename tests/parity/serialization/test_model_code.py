"""Models and fields that have their own ideas of serialization, and of which rows there are."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest
from django.db.models import signals
from morango.models import SyncableModel
from typing_extensions import override

from tests.parity.serialization.harness import Outcome, assert_same, edited, unit
from tests.support.factories import build_store_row
from worker.school.models import Learner, Unit

OTHER = "ab" * 16


def edits() -> Outcome:
    """Return edits of a new row, and of one that the Store has."""
    stored = unit(name="Stored")
    return assert_same([edited(unit(name="New")), edited(stored, name="Edited")], [stored])


def names(outcome: Outcome) -> set[Any]:
    return {json.loads(row["serialized"]).get("name") for row in outcome.store.values()}


def _with_a_key(self: Unit) -> dict[str, Any]:
    return {**SyncableModel.serialize(self), "name": self.name.upper(), "length": len(self.name)}


def _without_a_key(self: Unit) -> dict[str, Any]:
    data: dict[str, Any] = SyncableModel.serialize(self)
    del data["name"]
    return data


def _with_keys_of_the_row(self: Unit) -> dict[str, Any]:
    return {self.name: 1, "b": {}, "a": []} if self.name == "New" else {"a": 1}


def _with_keys_that_are_no_texts(self: Unit) -> dict[Any, Any]:
    return {1: self.name, None: 2.5, False: "x", "name": "NAME"}


@pytest.mark.parametrize(
    "serialize", [_with_a_key, _without_a_key, _with_keys_of_the_row, _with_keys_that_are_no_texts]
)
def test_models_own_serialize_makes_the_record(
    serialize: Callable[[Any], Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Unit, "serialize", serialize)
    assert len(edits().counters) == 2


def test_models_own_serialize_may_follow_a_reference(monkeypatch: pytest.MonkeyPatch) -> None:
    def serialize(self: Learner) -> dict[str, Any]:
        return {**SyncableModel.serialize(self), "unit": self.unit.name}

    monkeypatch.setattr(Learner, "serialize", serialize)
    school = unit(name="School")
    learners = [build_store_row("learner", unit=school, dirty=False) for _ in range(3)]
    rows = [edited(school, _morango_dirty_bit=False), *map(edited, learners)]
    result = assert_same(rows, [school, *learners[:1]])
    assert {json.loads(result.store[row.id]["serialized"])["unit"] for row in learners} == {"School"}


def test_models_own_init_changes_the_record(monkeypatch: pytest.MonkeyPatch) -> None:
    original = Unit.__init__

    def init(self: Unit, *args: Any, **kwargs: Any) -> None:
        original(self, *args, **kwargs)
        self.name += "!"

    rows = [unit(name="New"), unit(name="Stored")]
    app = [edited(row) for row in rows]
    monkeypatch.setattr(Unit, "__init__", init)
    assert names(assert_same(app, rows[1:])) == {"New!", "Stored!"}


def test_models_own_from_db_changes_the_record(monkeypatch: pytest.MonkeyPatch) -> None:
    original = Unit.from_db.__func__

    def from_db(cls: type[Unit], db: Any, field_names: Any, values: Any) -> Unit:
        instance: Unit = original(cls, db, field_names, values)
        instance.name += "!"
        return instance

    monkeypatch.setattr(Unit, "from_db", classmethod(from_db))
    assert names(edits()) == {"New!", "Edited!"}


def test_models_own_setattr_changes_the_record(monkeypatch: pytest.MonkeyPatch) -> None:
    def set_louder(self: Unit, name: str, value: Any) -> None:
        object.__setattr__(self, name, f"{value}!" if name == "name" else value)

    rows = [unit(name="New"), unit(name="Stored")]
    app = [edited(row) for row in rows]
    monkeypatch.setattr(Unit, "__setattr__", set_louder)
    assert names(assert_same(app, rows[1:])) == {"New!", "Stored!"}


def test_receiver_of_post_init_changes_the_record() -> None:
    def receive(instance: Unit, **kwargs: Any) -> None:
        instance.name = "seen"

    stored = unit(name="Stored")
    app = [edited(unit(name="New")), edited(stored)]
    signals.post_init.connect(receive, sender=Unit)
    try:
        assert names(assert_same(app, [stored])) == {"seen"}
    finally:
        signals.post_init.disconnect(receive, sender=Unit)


def test_receiver_of_pre_init_is_sent_each_instance() -> None:
    def receive(sender: type[Unit], **kwargs: Any) -> None:
        seen.append(sender)

    seen: list[type[Unit]] = []
    app = [edited(unit())]
    signals.pre_init.connect(receive, sender=Unit)
    try:
        assert_same(app)
    finally:
        signals.pre_init.disconnect(receive, sender=Unit)
    assert seen == [Unit, Unit]


def test_fields_own_value_from_object_makes_the_value(monkeypatch: pytest.MonkeyPatch) -> None:
    field = Unit._meta.get_field("name")
    monkeypatch.setattr(field, "__class__", type("Shouting", (type(field),), {
        "value_from_object": lambda self, obj: getattr(obj, self.attname).upper()
    }))  # fmt: skip
    assert names(edits()) == {"NEW", "EDITED"}


def test_fields_own_text_makes_the_value(monkeypatch: pytest.MonkeyPatch) -> None:
    field = Unit._meta.get_field("name")
    monkeypatch.setattr(field, "morango_serialize_to_string", True, raising=False)
    monkeypatch.setattr(field, "value_to_string", lambda obj: f"<{obj.name}>")
    assert names(edits()) == {"<New>", "<Edited>"}


def test_fields_own_from_db_value_makes_the_value(monkeypatch: pytest.MonkeyPatch) -> None:
    field = Unit._meta.get_field("name")
    convert = lambda value, expression, connection: list(value)  # noqa: E731  (an attribute of one field)
    monkeypatch.setattr(field, "from_db_value", convert, raising=False)
    assert json.loads(next(iter(edits().store.values()))["serialized"])["name"][0] in "NE"


def test_values_of_a_derived_type_are_serialized_alike(monkeypatch: pytest.MonkeyPatch) -> None:
    class Loud(str):
        __slots__ = ()

        @override
        def __str__(self) -> str:
            return "LOUD"

    field = Unit._meta.get_field("name")
    monkeypatch.setattr(field, "from_db_value", lambda value, *_: Loud(value), raising=False)
    assert names(edits()) == {"New", "Edited"}


def test_descriptor_in_a_fields_place_makes_the_value(monkeypatch: pytest.MonkeyPatch) -> None:
    class Quoted:
        def __get__(self, instance: Any, owner: Any) -> str:
            return f"“{instance.__dict__['name']}”"

        def __set__(self, instance: Any, value: str) -> None:
            instance.__dict__["name"] = value

    rows = [unit(name="New"), unit(name="Stored")]
    app = [edited(row) for row in rows]
    monkeypatch.setattr(Unit, "name", Quoted())
    assert names(assert_same(app, rows[1:])) == {"““New””", "““Stored””"}
