"""Models of one field each, and both ways from a record to a row.

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
from morango.models import Store, SyncableModel, UUIDField

from morango_celery.deserialization.error_text import error_text
from morango_celery.deserialization.rows import Row, RowPlan, row_plan
from morango_celery.deserialization.traits import traits_of
from morango_celery.deserialization.values import database_values, value_to_save
from tests.model_zoo.fields import KeyWithItsForm
from worker.school.models import Lesson, Unit

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
    "dashed": models.UUIDField(),
    "dashed_null": models.UUIDField(**NULL),
    "dashed_choices": models.UUIDField(choices=[(uuid.UUID(HEX), "this")]),
    "dashed_validated": models.UUIDField(validators=[refuse_odd]),
    "reference": key(Unit),
    "reference_null": key(Unit, **NULL),
    "reference_null_not_blank": key(Unit, null=True),
    "reference_one_to_one": key(Lesson, models.OneToOneField),
    "reference_with_form": key(Unit, KeyWithItsForm),
    "reference_limited": key(Unit, limit_choices_to={"name": "School"}),
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


def slow_path(model: Any, store: Store) -> list[Any]:
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
    assert list(map(with_type, made)) == list(map(with_type, values))
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
            slow_path(model, store)
        assert error_text(field_errors[0], store, model) == str(raised.value)
    if row is None:
        return
    try:
        expected = slow_path(model, store)
    except Exception as error:
        raise AssertionError(f"the fast path made {row} of what is refused: {error!r}") from error
    assert list(map(with_type, row.values)) == list(map(with_type, expected))


def with_type(value: Any) -> tuple[type[Any], Any]:
    """Return a value and its type, as the driver is given them: a UUID as its text, and a whole number
    without the type for its column's size that Django wraps it in for psycopg 3."""
    if isinstance(value, uuid.UUID):
        value = str(value)
    elif type(value).__module__.startswith("psycopg.types.numeric"):
        value = int(value)
    return type(value), value
