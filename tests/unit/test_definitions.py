"""Definitions that override a base class's methods, and their places in files."""

from __future__ import annotations

import functools
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from django.db import models
from morango.models import SyncableModel
from typing_extensions import override

from morango_celery.deserialization.traits import traits_of
from morango_celery.reading.definitions import attribute_of, definition_of, is_overridden, overriding
from tests.model_zoo.fields import LoudField
from tests.model_zoo.models import Person, Region, Step
from tests.unit.rows import throwaway
from worker.school.models import Lesson

HERE = "tests/unit/test_definitions.py"
LINES = Path(__file__).read_text(encoding="utf-8").splitlines()


def line_of(text: str) -> int:
    """Return the number of the only line that begins with a text, indented or not."""
    (line,) = [number for number, line in enumerate(LINES, 1) if line.strip().startswith(text)]
    return line


def decorated(function: Callable[..., Any]) -> Callable[..., Any]:
    @functools.wraps(function)
    def around(*args: Any, **kwargs: Any) -> Any:  # the code that runs
        return function(*args, **kwargs)

    return around


class Base:
    def plain(self) -> None: ...

    @classmethod
    def of_class(cls) -> None: ...


class Between(Base):
    @override
    def plain(self) -> None: ...  # between


class Behind:
    def plain(self) -> None: ...  # behind


class Cls(Between, Base, Behind):
    @override
    @classmethod
    def of_class(cls) -> None: ...  # own

    @property
    def shown(self) -> int:  # a property
        return 1

    @decorated
    def wrapped(self) -> None: ...


def test_definitions_of_all_own_classes_count_in_the_order_in_which_they_run() -> None:
    found = overriding(Cls, Base, "of_class", "plain")
    assert [(each.name, each.overrides.removeprefix(f"{__name__}.")) for each in found] == [
        ("Cls.of_class", "Base.of_class"),
        ("Between.plain", "Base.plain"),
        ("Behind.plain", ""),
    ]
    assert [each.place and each.place.line for each in found] == [
        line_of("def of_class(cls) -> None: ...  # own") - 2,  # that of its first decorator
        line_of("def plain(self) -> None: ...  # between") - 1,
        line_of("def plain(self) -> None: ...  # behind"),
    ]
    assert overriding(Base, Base, "of_class", "plain") == ()
    assert [is_overridden(cls, Base, "plain") for cls in (Cls, Base)] == [True, False]


@pytest.mark.parametrize(
    ("name", "line"),
    [
        ("shown", line_of("def shown(self) -> int:  # a property") - 1),
        ("wrapped", line_of("def around(*args: Any, **kwargs: Any) -> Any:  # the code that runs") - 1),
    ],
)
def test_place_is_that_of_the_code_that_runs(name: str, line: int) -> None:
    assert str(attribute_of(Cls, name).place) == f"{HERE}:{line}"


def test_path_begins_where_python_imports_from() -> None:
    assert str(definition_of(Cls).place) == f"{HERE}:{line_of('class Cls(')}"
    places = [definition_of(each).place for each in (models.TextField, SyncableModel, LoudField)]
    assert [place and place.file for place in places] == [
        "django/db/models/fields/__init__.py",
        "morango/models/core.py",
        "tests/model_zoo/fields.py",
    ]
    assert definition_of(len).place is None


def test_models_own_code_is_named_by_its_class_and_what_it_overrides() -> None:
    (save,) = traits_of(Step).save_code
    assert (save.dotted_name, save.overrides) == (
        "tests.model_zoo.models.Step.save",
        "morango.models.core.SyncableModel.save",
    )
    assert [each.name for each in traits_of(Person).deserialize_code] == ["Person.deserialize"]
    assert [each.name for each in traits_of(Person).clean_fields_code] == ["Person.clean_fields"]
    assert [each.name for each in traits_of(Region).save_code] == ["Site.save"]
    assert traits_of(Lesson).save_code == ()


def test_mixin_behind_morangos_class_is_code_of_the_models_own() -> None:
    class Counting(models.Model):
        class Meta:
            app_label = "throwaway"
            abstract = True

        @override
        def save(self, *args: Any, **kwargs: Any) -> None:
            super().save(*args, **kwargs)

    class Syncable(SyncableModel):
        class Meta:
            app_label = "throwaway"
            abstract = True

    model = throwaway("counted", models.TextField(), Syncable, Counting)
    traits = traits_of(model)
    assert traits.overrides_save
    assert [each.name.rpartition("<locals>.")[2] for each in traits.save_code] == ["Counting.save"]
