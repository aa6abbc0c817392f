"""Reasons in a model's fields and attributes against the fast path, each with its place and its remedy."""

from __future__ import annotations

from typing import Any

import django
import pytest
from django.core.validators import MaxValueValidator, RegexValidator
from django.db import models
from django.test import override_settings
from morango.models import SyncableModel
from typing_extensions import override

from morango_celery.deserialization.conversions import converter
from morango_celery.deserialization.parse import instance_reasons
from morango_celery.deserialization.reasons import Kind, Reason
from morango_celery.equivalents import FieldEquivalent, declare_field
from morango_celery.reading.attributes import class_like
from tests.model_zoo.fields import CentsField, KeyWithItsForm
from tests.model_zoo.models import Folder, Player, Sample
from tests.unit.reasons import line_of, places, reason_of, remedy
from tests.unit.rows import key, throwaway
from worker.school.models import Account

HERE = "tests/unit/test_field_reasons.py"
DJANGO = "django/db/models/fields/__init__.py:"


def refuse(value: Any) -> None:
    """Stand for a validator of a host's."""


@pytest.mark.parametrize(
    ("name", "why", "place", "advice"),
    [
        (
            "words",
            "WordsField makes a text of its values (morango_serialize_to_string)",
            f"tests/model_zoo/fields.py:{line_of('class WordsField', 'tests/model_zoo/fields.py')}",
            "use a plain TextField, or declare_field(WordsField, ...).",
        ),
        (
            "price",
            "fields of class DecimalField have no fast path",
            DJANGO,
            "declare_field(DecimalField, ...).",
        ),
        (
            "slug",
            "fields of class SlugField have no fast path",
            DJANGO,
            "use a plain CharField, or declare_field(SlugField, ...).",
        ),
    ],
)
def test_field_without_a_fast_path_is_named_with_its_class(
    name: str, why: str, place: str, advice: str
) -> None:
    reason = next(each for each in instance_reasons(Sample) if each.subject == name)
    assert (reason.kind, reason.text) == (Kind.FIELD, f"{name}: {why}")
    assert places(reason)[0].startswith(place)
    assert remedy(Sample, reason) == f"{name}: {advice}"


def test_equivalent_of_a_field_says_why_it_is_not_used(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("morango_celery.equivalents._declared_fields", {})
    monkeypatch.setattr("morango_celery.deserialization.equivalent._field_mismatches", {})
    field = Folder._meta.get_field("price")
    calls = ("to_python", "get_prep_value", "db_type")

    declare_field(CentsField, FieldEquivalent(lambda field: None, calls, "0" * 64))
    reason = converter(field)
    assert isinstance(reason, Reason)
    assert (reason.kind, reason.subject) == (Kind.FIELD_EQUIVALENT, "price")
    assert f"the equivalent stands for {'0' * 64}" in reason.text
    assert "sha256" in remedy(Folder, reason)

    monkeypatch.setattr("morango_celery.deserialization.equivalent._field_mismatches", {CentsField: None})
    reason = converter(field)
    assert isinstance(reason, Reason)
    assert reason.text == "price: the equivalent of CentsField leaves this field to its own code"
    assert (
        remedy(Folder, reason)
        == "price: let the converter of CentsField take the options of this field, too."
    )
    with override_settings(MORANGO_CELERY={"USE_EQUIVALENTS": False}):
        reason = converter(field)
    assert isinstance(reason, Reason)
    assert reason.kind is Kind.EQUIVALENTS_OFF


def test_validators_without_a_fast_path_are_named_and_no_others() -> None:
    validators: list[Any] = [MaxValueValidator(9), refuse]
    reason = reason_of(throwaway("number", models.IntegerField(validators=validators)), Kind.VALIDATORS)
    assert reason.text == (
        "number: its validators check something else than a fixed length or range (refuse)"
    )
    assert places(reason) == [f"{HERE}:{line_of('def refuse(', HERE)}"]
    by_class = throwaway("text", models.TextField(validators=[RegexValidator("a")]))
    assert [each.name for each in reason_of(by_class, Kind.VALIDATORS).code] == ["RegexValidator"]
    assert remedy(by_class, reason_of(by_class, Kind.VALIDATORS)).startswith("text: keep validators")


def test_reference_to_something_else_than_an_id_is_named() -> None:
    model = throwaway("account", key(Account))
    reason = reason_of(model, Kind.REFERENCE)
    assert reason.text == "account: it refers to school.Account.id, which is no id of Morango's"
    assert remedy(model, reason) == "account: refer to the id of a syncable model."


def test_times_without_zones_are_the_reason(settings: Any) -> None:
    settings.USE_TZ = False
    model = throwaway("moment", models.DateTimeField())
    reason = reason_of(model, Kind.NO_TIME_ZONES)
    assert (reason.subject, remedy(model, reason)) == ("moment", "Set USE_TZ to True.")


class Shouting(models.Model):
    class Meta:
        app_label = "throwaway"
        abstract = True

    @override
    def __setattr__(self, name: str, value: Any) -> None:
        super().__setattr__(name, value)

    @property
    def loud(self) -> Any:
        return self.__dict__["loud"]

    @loud.setter
    def loud(self, value: Any) -> None:
        self.__dict__["loud"] = value


def test_code_that_holds_the_values_is_named() -> None:
    model = throwaway("loud", models.TextField(), Shouting, SyncableModel)
    access = reason_of(model, Kind.ATTRIBUTE_ACCESS)
    assert places(access) == [f"{HERE}:{line_of('@override', HERE)}"]
    assert "save()" in remedy(model, access)
    if django.VERSION >= (4,):  # a field takes the place of a base class's attribute
        return
    held = reason_of(model, Kind.PROPERTY)
    assert places(held) == [f"{HERE}:{line_of('@property', HERE, within='class Shouting')}"]
    assert held.subject == "loud"
    assert "another name" in remedy(model, held)


class TextWithItsForm(models.CharField):  # type: ignore[type-arg]
    """Text with a form field and a description of its own."""

    description = "Text"

    @override
    def formfield(self, **kwargs: Any) -> Any:  # type: ignore[override]  # as Django's own do
        return super().formfield(**kwargs)


class UpperCase:
    """Mixin that changes values."""

    def from_db_value(self, value: str, expression: Any, connection: Any) -> str:
        return value.upper()


class ShoutedText(models.CharField, UpperCase):  # type: ignore[type-arg]
    """Text of a class that Django's knows nothing of."""


@pytest.mark.parametrize("field", [TextWithItsForm(max_length=9), models.CharField(max_length=9)])
def test_field_with_a_form_of_its_own_is_like_djangos(field: models.CharField[Any, Any]) -> None:
    assert not isinstance(converter(next(iter(throwaway("text", field)._meta.local_fields))), Reason)
    assert class_like(type(field), [models.CharField, models.ForeignKey]) is models.CharField


def test_foreign_key_with_a_form_of_its_own_is_like_djangos() -> None:
    key_of_player = Player._meta.get_field("ensemble")
    assert type(key_of_player) is KeyWithItsForm
    assert not isinstance(converter(key_of_player), Reason)


@pytest.mark.parametrize("kind", [ShoutedText, CentsField, models.SlugField, models.EmailField])
def test_field_that_may_change_values_is_like_none(kind: type[Any]) -> None:
    assert class_like(kind, [models.CharField, models.IntegerField]) is None
