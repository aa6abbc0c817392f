"""Fast path from JSON to row: the rows of whole records, and models that have no fast path."""

from __future__ import annotations

import uuid
from typing import Any

import pytest
from django.core.exceptions import ValidationError
from django.db import models
from django.test.utils import isolate_apps
from morango.models.certificates import Filter

from morango_celery.deserialization.rows import row_plan
from morango_celery.deserialization.traits import traits_of
from tests.support import factories
from tests.unit.rows import ABSENT, HEX, assert_fast_path_is_safe, key, plan_of, record, throwaway
from worker.school.models import Account, Attempt, Feedback, Learner, Lesson, Unit

UNUSUAL: dict[str, Any] = {
    "email": models.EmailField(),
    "slug": models.SlugField(),
    "decimal": models.DecimalField(max_digits=4, decimal_places=2),
    "duration": models.DurationField(),
    "time": models.TimeField(),
    "json": models.JSONField(),
    "reference_to_number": key(Account),
}


@pytest.mark.parametrize("name", UNUSUAL)
def test_unusual_kind_of_field_has_no_fast_path(name: str) -> None:
    assert row_plan(throwaway(name, UNUSUAL[name])) is None


@pytest.mark.parametrize("model", [Lesson, Attempt, Feedback])
def test_row_has_the_stores_own_bookkeeping(model: Any) -> None:
    # Given a record that claims another partition and source, and a local edit
    store = factories.build_store_row(
        model.morango_model_name,
        unit_id=HEX,
        learner_id=HEX,
        attempt_id=HEX,
        _morango_dirty_bit=True,
        _morango_partition="forged",
        _morango_source_id="forged",
    )

    (made,) = plan_of(model).rows([store])
    assert made is not None
    row = dict(zip([field.attname for field in model._meta.concrete_fields], made.values, strict=True))

    # Then the Store's columns count
    assert row["_morango_partition"] == store.partition
    assert row["_morango_source_id"] == store.source_id
    assert row["_morango_dirty_bit"] is False
    assert made.values[plan_of(model).key_position] == store.id


def test_only_rejected_records_of_many_take_the_slow_path() -> None:
    # Given records with a column that can't be checked as a whole
    values = ["one", 5, "", "\x00", None, "six", "x" * 201, ["x"], "nine"]
    stores = [factories.build_store_row("lesson", unit_id=HEX, title=value) for value in values]
    stores.insert(2, factories.build_store_row("lesson", serialized="{"))

    rows = plan_of(Lesson).rows(stores)

    titles = [
        row and row.values[traits_of(Lesson).fields.index(Lesson._meta.get_field("title"))] for row in rows
    ]
    assert titles == ["one", None, None, None, None, None, "six", None, None, "nine"]
    assert [row and row.values[plan_of(Lesson).key_position] for row in rows] == [
        store.id if title else None for store, title in zip(stores, titles, strict=True)
    ]


@pytest.mark.django_db
def test_values_that_fields_reject_are_refused_at_once() -> None:
    attempt, unclear = (
        factories.build_store_row("attempt", score=2.0, kind="dance", learner_id=learner_id)
        for learner_id in (None, HEX.upper())
    )
    field_errors: dict[int, ValidationError] = {}

    assert plan_of(Attempt).rows([unclear, attempt], field_errors) == [None, None]

    assert {place: list(error.message_dict) for place, error in field_errors.items()} == {
        1: ["learner", "kind", "score"]
    }
    assert_fast_path_is_safe(Attempt, attempt)


def test_no_records_make_no_rows() -> None:
    assert plan_of(Lesson).rows([]) == []


@pytest.mark.parametrize(
    ("changed", "is_stored"),
    [({}, True), ({"opens_at": ABSENT}, False), ({"unknown": 1}, True)],
    ids=["complete", "a key is absent", "an unknown key"],
)
def test_row_can_be_read_from_the_store_if_it_is_all_there(changed: Any, is_stored: bool) -> None:
    sound = {"id": HEX, "school_id": HEX, "unit_id": HEX, "title": "x", "opens_at": None, **changed}
    neighbour = factories.build_store_row("lesson", unit_id=HEX)

    row, other = plan_of(Lesson).rows([record(Lesson, sound), neighbour])

    assert row is not None
    assert row.is_stored is is_stored
    assert other is not None
    assert other.is_stored


@pytest.mark.parametrize("named", ["f" * 32, HEX.upper(), "", None, 5])
@pytest.mark.parametrize("title", ["x", ""], ids=["valid", "invalid"])
def test_json_without_its_own_id_takes_the_slow_path(named: Any, title: str) -> None:
    data = {"id": named, "school_id": HEX, "unit_id": HEX, "title": title, "opens_at": None}
    field_errors: dict[int, ValidationError] = {}

    assert plan_of(Lesson).rows([record(Lesson, data)], field_errors) == [None]
    assert not field_errors


def test_plan_names_each_reference_and_its_target() -> None:
    columns = [field.attname for field in Attempt._meta.concrete_fields]
    assert [(columns[at], name, field.name) for at, name, field in plan_of(Attempt).references] == [
        ("learner_id", "learner", "learner"),
        ("lesson_id", "lesson", "lesson"),
    ]


@pytest.mark.parametrize(
    "serialized",
    ["", "null", "[]", "5", '"text"', "{", "nothing", '{"id": ' + "9" * 5000 + "}", "[" * 100_000],
    ids=["empty", "null", "list", "number", "text", "cut off", "no JSON", "too many digits", "too deep"],
)
def test_json_of_no_record_takes_the_slow_path(serialized: str) -> None:
    store = factories.build_store_row("lesson", unit_id=HEX, serialized=serialized)

    assert plan_of(Lesson).rows([store]) == [None]


@pytest.mark.parametrize("model", [Unit, Learner])
def test_trees_and_models_with_code_of_their_own_have_no_fast_path(model: Any) -> None:
    assert row_plan(model) is None


@pytest.mark.parametrize(
    "method", ["save", "save_base", "clean_fields", "deferred_clean_fields", "__init__", "__setattr__"]
)
def test_model_that_overrides_a_step_has_no_fast_path(method: str) -> None:
    plain = throwaway("plain", models.TextField())
    assert row_plan(plain) is not None

    def override(self: Any, *args: Any, **kwargs: Any) -> Any:
        return getattr(super(overriding, self), method)(*args, **kwargs)

    with isolate_apps():
        overriding = type(
            "Overriding",
            (plain,),
            {
                "__module__": __name__,
                "Meta": type("Meta", (), {"app_label": "throwaway", "proxy": True}),
                method: override,
            },
        )
    assert row_plan(overriding) is None


def test_model_that_overrides_deserialize_has_no_fast_path() -> None:
    def deserialize(cls: Any, data: dict[str, Any], sync_filter: Filter | None = None) -> Any:
        return cls(id=uuid.uuid4().hex)

    overriding = throwaway("overriding", models.TextField(), deserialize=classmethod(deserialize))

    assert row_plan(overriding) is None


def test_model_with_a_property_in_a_fields_place_has_no_fast_path() -> None:
    model = throwaway("loud", models.TextField())
    # Not in a base class, for Django 4.2 puts the field's own descriptor in its place
    model.loud = property(
        lambda self: self.__dict__["loud"], lambda self, value: self.__dict__.update(loud=value.upper())
    )

    assert model(loud="a").loud == "A"
    assert row_plan(model) is None


def test_field_that_speaks_text_has_no_fast_path() -> None:
    field: Any = models.TextField()
    field.morango_serialize_to_string = True

    assert row_plan(throwaway("spoken", field)) is None
