"""Fields as Django 5 has them: computed by the database, or with choices that a function makes."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import django
import pytest
from django.core.exceptions import ValidationError
from django.db import models
from django.db.models import Value

from morango_celery.deserialization.conversions import converter
from morango_celery.deserialization.parse import instance_reasons
from morango_celery.deserialization.reasons import Kind, Reason
from morango_celery.deserialization.traits import traits_of
from tests.unit.rows import plan_of, record, throwaway


class Changing:
    """Choices that are made anew each time."""

    def __iter__(self) -> Iterator[tuple[str, str]]:
        return iter([("a", "A")])

    def __call__(self) -> list[tuple[str, str]]:
        return list(self)


def test_choices_that_may_be_others_each_time_have_no_fast_path() -> None:
    # Django 5 takes functions, and makes a list of everything else
    changing: Any = Changing().__call__ if django.VERSION >= (5,) else Changing()
    field: Any = models.CharField(max_length=5, choices=changing)
    field.set_attributes_from_name("kind")

    reason = converter(field)

    assert isinstance(reason, Reason)
    assert (reason.kind, reason.text) == (Kind.FIELD, "kind: its choices may be others each time")


def test_column_that_the_database_computes_is_not_written() -> None:
    total: Any = models.IntegerField(null=True)
    model = throwaway("total_computed", total)
    total.generated = True

    assert total not in traits_of(model).fields
    assert [column.name for column in plan_of(model).columns] == [
        field.attname for field in model._meta.concrete_fields if field is not total
    ]
    assert not instance_reasons(model)


def test_value_that_the_database_makes_is_left_to_the_slow_path(monkeypatch: pytest.MonkeyPatch) -> None:
    model = throwaway("made_by_default", models.IntegerField(default=1))
    field = model._meta.get_field("made_by_default")
    monkeypatch.setattr(field, "get_default", lambda: Value(5))

    errors: dict[int, ValidationError] = {}
    (row,) = plan_of(model).rows([record(model, {})], errors)

    assert (row, errors) == (None, {})
