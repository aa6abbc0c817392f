"""Fast path from JSON to row: it either declines or gives exactly the slow path's row.

The slow path is Morango's: ``deserialize()``, ``deferred_clean_fields()``, then what Django would write.
"""

from __future__ import annotations

import datetime
import json
import uuid
from typing import Any

import pytest
from django.core.exceptions import ValidationError
from django.core.validators import (
    MaxLengthValidator,
    MaxValueValidator,
    MinLengthValidator,
    MinValueValidator,
)
from django.core.validators import RegexValidator as Regex
from django.db import connection, models
from django.test.utils import isolate_apps
from hypothesis import given, settings
from hypothesis import strategies as st
from morango.models import Store, SyncableModel, UUIDField
from morango.models.certificates import Filter

from morango_celery.deserialization.error_text import error_text
from morango_celery.deserialization.rows import Row, RowPlan, row_plan
from morango_celery.deserialization.traits import traits_of
from morango_celery.deserialization.values import database_values, value_to_save
from tests.support import factories
from worker.school.models import Account, Attempt, Feedback, Learner, Lesson, Unit

HEX = "0123456789abcdef" * 2
NOON = datetime.datetime(2026, 1, 2, 12, tzinfo=datetime.UTC)


def refuse_odd(value: Any) -> None:
    if value in (True, 3, HEX) or (isinstance(value, int) and value % 2):
        raise ValidationError("odd")


def key(target: Any, kind: Any = models.ForeignKey, **options: Any) -> Any:
    return kind(target, on_delete=models.CASCADE, related_name="+", **options)


NULL: dict[str, Any] = {"null": True, "blank": True}
FIELDS: dict[str, Any] = {
    "char": models.CharField(max_length=5),
    "char_blank": models.CharField(max_length=5, blank=True),
    "char_null": models.CharField(max_length=5, **NULL),
    "char_null_not_blank": models.CharField(max_length=5, null=True),
    "char_default": models.CharField(max_length=5, default="four"),
    "char_null_default": models.CharField(max_length=5, default="four", **NULL),
    "char_default_too_long": models.CharField(max_length=5, default="too long"),
    "char_not_editable": models.CharField(max_length=5, editable=False),
    "char_choices": models.CharField(max_length=5, choices=[("one", "1"), ("two", "2"), (" ", "blank")]),
    "char_choices_blank": models.CharField(max_length=5, choices=[("one", "1")], blank=True),
    "char_choices_null": models.CharField(max_length=5, choices=[("one", "1")], **NULL),
    "char_choices_grouped": models.CharField(max_length=5, choices=[("odd", [("one", "1")]), ("two", "2")]),
    "char_without_choice": models.CharField(max_length=5, choices=[]),
    "char_shorter": models.CharField(max_length=40, validators=[MaxLengthValidator(3)]),
    "char_longer": models.CharField(max_length=40, validators=[MinLengthValidator(3)]),
    "char_pattern": models.CharField(max_length=40, validators=[Regex("^a")]),
    "char_unique": models.CharField(max_length=5, unique=True),
    "text": models.TextField(),
    "text_blank": models.TextField(blank=True),
    "text_null": models.TextField(**NULL),
    "text_choices": models.TextField(choices=[("one", "1"), ("two", "2")]),
    "text_capped": models.TextField(validators=[MaxLengthValidator(3)]),
    "boolean": models.BooleanField(),
    "boolean_default": models.BooleanField(default=True),
    "boolean_null": models.BooleanField(**NULL),
    "boolean_choices": models.BooleanField(choices=[(True, "yes")]),
    "boolean_validated": models.BooleanField(validators=[refuse_odd]),
    "integer": models.IntegerField(),
    "integer_null": models.IntegerField(**NULL),
    "integer_null_not_blank": models.IntegerField(null=True),
    "integer_bounded": models.IntegerField(validators=[MinValueValidator(-3), MaxValueValidator(3)]),
    "integer_choices": models.IntegerField(choices=[(0, "none"), (1, "one"), (3, "three")]),
    "integer_validated": models.IntegerField(validators=[refuse_odd]),
    "integer_moving_bound": models.IntegerField(validators=[MaxValueValidator(lambda: 2)]),
    "big": models.BigIntegerField(),
    "small": models.SmallIntegerField(),
    "positive": models.PositiveIntegerField(),
    "positive_big": models.PositiveBigIntegerField(),
    "positive_small": models.PositiveSmallIntegerField(),
    "float": models.FloatField(),
    "float_null": models.FloatField(**NULL),
    "float_bounded": models.FloatField(validators=[MinValueValidator(0.0), MaxValueValidator(1)]),
    "float_choices": models.FloatField(choices=[(0.5, "half"), (1, "one")]),
    "moment": models.DateTimeField(),
    "moment_null": models.DateTimeField(**NULL),
    "moment_default": models.DateTimeField(default=NOON),
    "moment_updated": models.DateTimeField(auto_now=True),
    "moment_created": models.DateTimeField(auto_now_add=True),
    "moment_choices": models.DateTimeField(choices=[(NOON, "noon")]),
    "moment_validated": models.DateTimeField(validators=[MinValueValidator(NOON)]),
    "day": models.DateField(),
    "day_null": models.DateField(**NULL),
    "day_updated": models.DateField(auto_now=True),
    "day_choices": models.DateField(choices=[(NOON.date(), "then")]),
    "day_validated": models.DateField(validators=[MinValueValidator(NOON.date())]),
    "uuid": UUIDField(),
    "uuid_null": UUIDField(**NULL),
    "uuid_validated": UUIDField(validators=[refuse_odd]),
    "uuid_choices": UUIDField(choices=[(HEX, "this")]),
    "reference": key(Unit),
    "reference_null": key(Unit, **NULL),
    "reference_null_not_blank": key(Unit, null=True),
    "reference_one_to_one": key(Lesson, models.OneToOneField),
    "reference_limited": key(Unit, limit_choices_to={"name": "School"}),
}

UNUSUAL: dict[str, Any] = {
    "email": models.EmailField(),
    "slug": models.SlugField(),
    "decimal": models.DecimalField(max_digits=4, decimal_places=2),
    "duration": models.DurationField(),
    "time": models.TimeField(),
    "json": models.JSONField(),
    "django_uuid": models.UUIDField(),
    "reference_to_number": key(Account),
}


def throwaway(name: str, field: Any, *bases: type, proxy: bool = False, **attributes: Any) -> Any:
    """Return a model with one field, or none, known to this module only."""
    with isolate_apps():
        return type(
            name.title().replace("_", ""),
            bases or (SyncableModel,),
            {
                "__module__": __name__,
                "Meta": type("Meta", (), {"app_label": "throwaway", "proxy": proxy}),
                "morango_model_name": name,
                **({name: field} if field is not None else {}),
                **attributes,
            },
        )


MODELS = {name: throwaway(name, field) for name, field in FIELDS.items()}

ABSENT = "the key is absent"

# The fast path exists for these: if it declined them, it would be useless
PLAIN: dict[str, list[Any]] = {
    "char": ["x", "fives", "é", " "],
    "char_blank": ["", "x"],
    "char_null": [None, "", "x"],
    "char_null_default": [None, ABSENT],
    "char_choices": ["one", "two"],
    "char_choices_null": [None, "one"],
    "char_choices_grouped": ["one", "two"],
    "char_unique": ["x"],
    "text": ["x" * 10_000, "\n"],
    "text_null": [None, ""],
    "boolean": [True, False],
    "boolean_null": [None, True],
    "integer": [0, -1, 2**31 - 1],
    "integer_null": [None, 7],
    "integer_bounded": [-3, 0, 3],
    "integer_choices": [0, 3],
    "big": [2**63 - 1],
    "positive": [0, 5],
    "float": [0.5, 1, -1e100, 0, -0.0],
    "float_bounded": [0, 0.25, 1.0],
    "moment": ["2026-01-02T03:04:05Z", "2026-01-02T03:04:05.678Z", "2026-01-02T03:04:05.678901Z"],
    "moment_null": [None],
    "moment_updated": ["2026-01-02T03:04:05.678901Z"],
    "day": ["2026-01-02"],
    "day_null": [None, "2024-02-29"],
    "uuid": [HEX],
    "uuid_null": [None, HEX],
    "reference": [HEX],
    "reference_null": [None, HEX],
    "reference_one_to_one": [HEX],
}


def record(model: Any, fields: dict[str, Any]) -> Store:
    data = {name: value for name, value in fields.items() if value is not ABSENT}
    return Store(
        id=HEX,
        profile="throwaway",
        model_name=model.morango_model_name,
        partition="a partition",
        source_id="a source id",
        serialized=json.dumps({"id": HEX, **data}),
    )


def long_way(model: Any, store: Store) -> list[Any]:
    """Return the row that Morango and Django make of a record.

    :raises Exception: they refuse it
    """
    app_model = model.deserialize(json.loads(store.serialized))
    app_model._morango_source_id = store.source_id
    app_model._morango_partition = store.partition
    app_model._morango_dirty_bit = False
    app_model.deferred_clean_fields()
    fields = traits_of(model).fields
    values = [field.get_db_prep_save(value_to_save(app_model, field), connection) for field in fields]
    made = database_values(app_model, fields)  # which doesn't ask the fields for plain values
    assert [(type(value), value) for value in made] == [(type(value), value) for value in values]
    return values


def plan_of(model: Any) -> RowPlan:
    plan = row_plan(model)
    assert plan is not None
    return plan


def fast_path_row(model: Any, store: Store) -> Row | None:
    """Return the fast path's row; None if it declines the row or the model."""
    plan = row_plan(model)
    return None if plan is None else plan.rows([store])[0]


def assert_fast_path_is_safe(model: Any, store: Store) -> None:
    field_errors: dict[int, ValidationError] = {}
    row = None if row_plan(model) is None else plan_of(model).rows([store], field_errors)[0]
    if field_errors:
        assert row is None
        with pytest.raises(ValidationError) as raised:
            long_way(model, store)
        assert error_text(field_errors[0], store, model) == str(raised.value)
    if row is None:
        return
    try:
        expected = long_way(model, store)
    except Exception as error:
        raise AssertionError(f"the fast path made {row} of what is refused: {error!r}") from error
    assert [(type(value), value) for value in row.values] == [(type(value), value) for value in expected]


# Any Unicode character, half of a pair and NUL included
characters = st.characters(codec=None, exclude_categories=())
near = st.sampled_from(["one", "two", " ", "0", "1.5", "true", "abcd", "x" * 41])
texts = st.text(characters, max_size=7) | near
numbers = (
    st.integers(-5, 5)
    | st.integers(-(2**70), 2**70)
    | st.sampled_from([10**400, -(2**15) - 1, 2**31, 2**63, -(2**63) - 1])
    | st.floats()
    | st.sampled_from([0.5, 1.0, 3.0])
)
moments = st.one_of(
    st.datetimes(timezones=st.just(datetime.UTC)).map(lambda m: m.isoformat().replace("+00:00", "Z")),
    st.datetimes().map(lambda m: m.isoformat(timespec="milliseconds") + "Z"),
    st.datetimes().map(datetime.datetime.isoformat),
    st.datetimes(timezones=st.just(datetime.timezone(datetime.timedelta(hours=3)))).map(str),
    # With and without separators, with points and commas, and with days and minutes that don't exist
    st.from_regex(r"2026-0[0-3]-[0-3]1[T ]0[1-4]:?[0-6]0:?[0-6]0([.,][0-9]{1,7})?(Z|\+01)?", fullmatch=True),
    st.from_regex(r"[0-9W-]{10}T[0-9:.,+-]{8,15}Z", fullmatch=True),
)
days = st.one_of(
    st.dates().map(datetime.date.isoformat),
    st.from_regex(r"[0-9W-]{8,10}", fullmatch=True),
    st.sampled_from(["2026-W01-1", "2026-1-2", "20260102", "2026-02-30", "2026-01-02", "2026-01-02 "]),
)
uuids = st.one_of(
    st.uuids().map(lambda value: value.hex),
    st.uuids().map(str),
    st.uuids().map(lambda value: value.hex.upper()),
    st.sampled_from([HEX, HEX[1:], HEX + "0", HEX[:-1] + "g", "{" + HEX + "}", "\u0663" * 32]),
)
nested = st.lists(st.integers(), max_size=2) | st.dictionaries(st.text(max_size=2), st.integers(), max_size=2)
anything = st.one_of(st.none(), st.just(ABSENT), st.booleans(), numbers, texts, moments, days, uuids, nested)
OF_KIND: dict[str, st.SearchStrategy[Any]] = {
    "char": texts,
    "text": texts,
    "boolean": st.booleans() | numbers | near,
    "integer": numbers,
    "big": numbers,
    "small": numbers,
    "positive": numbers,
    "float": numbers,
    "moment": moments,
    "day": days,
    "uuid": uuids,
    "reference": uuids,
}


@pytest.mark.parametrize("name", FIELDS)
def test_value_is_written_as_the_long_way_would_or_not_at_all(name: str) -> None:
    model = MODELS[name]
    attname = model._meta.get_field(name).attname

    @settings(max_examples=60, deadline=None)
    @given(OF_KIND[name.partition("_")[0]] | anything)
    def holds(value: Any) -> None:
        assert_fast_path_is_safe(model, record(model, {attname: value}))

    if row_plan(model) is not None:
        holds()


@pytest.mark.parametrize("name", UNUSUAL)
def test_unusual_kind_of_field_has_no_fast_path(name: str) -> None:
    assert row_plan(throwaway(name, UNUSUAL[name])) is None


@pytest.mark.parametrize(
    ("name", "value"), [(name, value) for name, plain in PLAIN.items() for value in plain], ids=repr
)
def test_plain_value_takes_the_fast_path(name: str, value: Any) -> None:
    model = MODELS[name]
    store = record(model, {model._meta.get_field(name).attname: value})

    assert fast_path_row(model, store) is not None
    assert_fast_path_is_safe(model, store)


# Each case is one where a value passes for plain at a first glance
CLOSE = [
    ("char_shorter", "abcd"),
    ("char_longer", "ab"),
    ("char_pattern", "b"),
    ("char", ""),
    ("char", "sixsix"),
    ("char", "\x00"),
    ("char_not_editable", None),
    ("char_null_not_blank", None),
    ("char_default_too_long", ABSENT),
    ("char_without_choice", "x"),
    ("char_choices", "three"),
    ("text_capped", "abcd"),
    ("boolean", 1),
    ("boolean", "true"),
    ("boolean_choices", False),
    ("boolean_validated", True),
    ("integer", True),
    ("integer", 1.0),
    ("integer", "1"),
    ("integer_validated", 3),
    ("integer_moving_bound", 3),
    ("integer_choices", 2),
    ("integer_bounded", -4),
    ("integer_bounded", 4),
    ("positive", -1),
    ("positive", 2**31),
    ("integer_null_not_blank", None),
    ("float", True),
    ("float", 10**400),
    ("float", float("nan")),
    ("float", float("inf")),
    ("float_bounded", 1.1),
    ("float_bounded", -0.1),
    ("moment", "2026-01-02T030405.0Z"),
    ("moment", "2026-01-02T030405.12345Z"),
    ("moment", "2026-01-02T03:04:05"),
    ("moment", "2026-01-02T25:04:05Z"),
    ("moment_validated", "2026-01-01T03:04:05Z"),
    ("moment_created", None),
    ("day", "2026-W01-1"),
    ("day", "2026-02-30"),
    ("day_validated", "2026-01-01"),
    ("uuid", HEX.upper()),
    ("uuid", ""),
    ("uuid_validated", HEX),
    ("uuid_choices", "f" * 32),
    ("reference", None),
    ("reference", 5),
    ("reference_null_not_blank", None),
]


@pytest.mark.parametrize(("name", "value"), CLOSE, ids=repr)
def test_value_that_only_looks_plain_is_not_taken_for_it(name: str, value: Any) -> None:
    model = MODELS[name]

    assert_fast_path_is_safe(model, record(model, {model._meta.get_field(name).attname: value}))


KINDS = {
    "id": uuids,
    "school_id": uuids,
    "unit_id": uuids,
    "learner_id": uuids,
    "lesson_id": uuids | st.none(),
    "attempt_id": uuids,
    "title": texts,
    "opens_at": moments | st.none(),
    "kind": st.sampled_from(["exercise", "quiz", "survey", "dance"]),
    "score": st.floats(0, 1) | numbers,
    "answered_at": moments,
    "answer": texts,
    "text": texts,
    "_morango_dirty_bit": st.booleans(),
    "_morango_partition": texts,
    "unknown": nested,
}


@pytest.mark.parametrize("model", [Lesson, Attempt, Feedback])
def test_record_of_the_school_is_written_as_the_long_way_would_or_not_at_all(model: Any) -> None:
    assert row_plan(model) is not None
    names = {field.attname for field in model._meta.concrete_fields} | {"unknown"}
    sound = json.loads(factories.build_store_row(model.morango_model_name).serialized)
    sound.update({"id": HEX} | {name: HEX for name in names if name.endswith("_id")})

    @settings(max_examples=100, deadline=None)
    @given(st.fixed_dictionaries({}, optional={name: KINDS[name] for name in names & KINDS.keys()}))
    def holds(changed: dict[str, Any]) -> None:
        assert_fast_path_is_safe(model, record(model, {**sound, **changed}))

    holds()
    assert fast_path_row(model, record(model, sound)) is not None


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
    class Shouting(models.Model):
        class Meta:
            app_label = "throwaway"
            abstract = True

        @property
        def loud(self) -> str:
            return str(self.__dict__["loud"])

        @loud.setter
        def loud(self, value: str) -> None:
            self.__dict__["loud"] = value.upper()

    model = throwaway("loud", models.TextField(), Shouting, SyncableModel)

    assert model(loud="a").loud == "A"
    assert row_plan(model) is None


def test_field_that_speaks_text_has_no_fast_path() -> None:
    field: Any = models.TextField()
    field.morango_serialize_to_string = True

    assert row_plan(throwaway("spoken", field)) is None
