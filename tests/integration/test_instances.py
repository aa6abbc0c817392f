"""Instances that are read by statements which are made once."""

from __future__ import annotations

from typing import Any

import pytest
from django.db import connection, models
from django.test.utils import CaptureQueriesContext, isolate_apps
from morango.models import Store
from morango.registry import syncable_models
from typing_extensions import override

from morango_celery.deserialization import deserialize_batch
from morango_celery.deserialization.instances import read_instances
from tests.model_zoo.models import PROFILE as MODEL_ZOO
from tests.model_zoo.models import Card, Lorry, Site, Vehicle
from tests.model_zoo.rows import build_zoo_row
from tests.support.factories import build_store_row
from worker.school.models import PROFILE as SCHOOL
from worker.school.models import Lesson

pytestmark = pytest.mark.django_db


def saved(rows: list[Store]) -> None:
    Store.objects.bulk_create(rows)
    assert deserialize_batch(rows[0].profile, [row.id for row in rows]).saved == len(rows)


def everything() -> None:
    """Save rows of every kind of column and name."""
    region = build_zoo_row("region")
    person = build_zoo_row("person", home=region)
    cabinet = build_zoo_row("cabinet")
    moment = "2026-01-02T03:04:05.678901Z"
    typed = {"words": "a b", "flag": True, "price": "1.50", "day": "2026-01-02", "hour": "03:04:05"}
    more = {"moment": moment, "length": "1 02:03:04", "address": "10.0.0.1", "data": {"a": [1, None]}}
    saved(
        [
            region,
            build_zoo_row("town", parent=region),
            person,
            build_zoo_row("card", person=person, issued_at=region),
            build_zoo_row("lorry", owner=person, plate="AB 1"),
            build_zoo_row("letter", closed=True),
            build_zoo_row("sample", **typed, **more, other_id=region.id),
            build_zoo_row("reading", day="2026-01-02", moment=moment, big=2**40),
            cabinet,
            build_zoo_row("drawer", cabinet=cabinet),
        ]
    )
    unit = build_store_row("unit")
    saved(
        [unit, build_store_row("lesson", unit=unit, opens_at=moment), build_store_row("learner", unit=unit)]
    )


def state(instance: Any) -> dict[str, Any]:
    values = {name: value for name, value in vars(instance).items() if name != "_state"}
    return {**values, "adding": instance._state.adding, "db": instance._state.db}


def test_instances_equal_those_that_django_reads() -> None:
    everything()
    read = 0
    for model in {*syncable_models.get_models(MODEL_ZOO), *syncable_models.get_models(SCHOOL), Site, Vehicle}:
        rows = {row.pk: row for row in model._base_manager.all()}
        found = {row.pk: row for row in read_instances(model, "id", [*rows, "ab" * 16])}
        assert {key: state(row) for key, row in found.items()} == {key: state(rows[key]) for key in rows}
        assert {type(row) for row in found.values()} <= {model}
        read += len(found)
    assert read > 15


def test_django_compiles_only_the_first_query(monkeypatch: pytest.MonkeyPatch) -> None:
    everything()
    ids = list(Lesson.objects.values_list("id", flat=True))
    read_instances(Lesson, "id", ids)

    def compiled(*_: Any) -> None:
        raise AssertionError("A query was compiled")

    monkeypatch.setattr(models.sql.compiler.SQLCompiler, "as_sql", compiled)
    assert [row.pk for row in read_instances(Lesson, "id", ids)] == ids


@pytest.mark.parametrize(("model", "name"), [(Lorry, "id"), (Vehicle, "plate"), (Card, "person_id")])
def test_columns_that_are_not_plain_are_read_by_django(model: type[models.Model], name: str) -> None:
    everything()
    (row,) = model._base_manager.all()
    with CaptureQueriesContext(connection) as queries:
        assert read_instances(model, name, [getattr(row, name)]) == [row]
    assert " IN (" in queries[0]["sql"]
    assert "json_each" not in queries[0]["sql"]


@isolate_apps("tests.model_zoo")
def test_base_manager_of_a_models_own_has_its_say() -> None:
    class Nothing(models.Manager[Any]):
        @override
        def get_queryset(self) -> Any:
            return super().get_queryset().none()

    class Hidden(models.Model):  # noqa: DJ008  (shown to nobody)
        id = models.CharField(primary_key=True, max_length=32)
        objects = Nothing()

        class Meta:
            app_label = "model_zoo"
            managed = False
            base_manager_name = "objects"

    assert read_instances(Hidden, "id", ["ab" * 16]) == []
