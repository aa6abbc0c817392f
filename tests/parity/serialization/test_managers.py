"""Rows that a model takes for its own: by managers, as proxies, in two tables."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest
from django.db.models import Count, F, Prefetch
from morango.models import SyncableModel
from morango.models.certificates import Filter
from morango.models.manager import SyncableModelManager

from tests.model_zoo.models import PROFILE, Region
from tests.model_zoo.rows import build_zoo_row
from tests.parity.serialization.harness import assert_same, edited, unit
from worker.school.models import Unit


def test_proxies_of_one_table_keep_their_models() -> None:
    region, town = build_zoo_row("region"), build_zoo_row("town")
    quarter = build_zoo_row("town", parent=town)
    result = assert_same([edited(row) for row in (quarter, town, region)], [region], profile=PROFILE)
    assert {row["model_name"] for row in result.store.values()} == {"region", "town"}
    assert result.store[quarter.id]["_self_ref_fk"] == town.id


def test_row_that_no_manager_shows_stays_dirty() -> None:
    hidden = edited(build_zoo_row("region", kind="island"))
    result = assert_same([hidden], profile=PROFILE)
    assert not result.store
    assert result.dirty("model_zoo_site") == {hidden.id}


def test_row_that_two_managers_show_is_of_the_first_model(monkeypatch: pytest.MonkeyPatch) -> None:
    site = edited(build_zoo_row("town"))
    monkeypatch.setattr(Region, "syncing_objects", _manager(Region, lambda rows: rows))
    result = assert_same([site], profile=PROFILE)
    assert result.store[site.id]["model_name"] == "region"


def _only_named(rows: Any) -> Any:
    return rows.filter(name__startswith="N")


def _ordered(rows: Any) -> Any:
    return rows.order_by("-name")


def _joined(rows: Any) -> Any:
    return rows.select_related("parent").annotate(above=F("parent__name")).distinct()


def _counted(rows: Any) -> Any:
    return rows.annotate(below=Count("unit"), learners=Count("learner", distinct=True))


def _deferred(rows: Any) -> Any:
    return rows.defer("name", "_morango_partition")


@pytest.mark.parametrize("choose", [_only_named, _ordered, _joined, _counted, _deferred])
def test_models_own_manager_chooses_its_rows(
    choose: Callable[[Any], Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Unit, "syncing_objects", _manager(Unit, choose))
    stored = unit(name="Stored")
    result = assert_same([edited(unit(name="New")), edited(stored, name="Edited")], [stored])
    assert "New" in {json.loads(row["serialized"])["name"] for row in result.store.values()}


def test_models_own_manager_may_prefetch_for_serialize(monkeypatch: pytest.MonkeyPatch) -> None:
    def serialize(self: Unit) -> dict[str, Any]:
        data: dict[str, Any] = SyncableModel.serialize(self)
        return {**data, "below": [child.name for child in self.below]}

    below = Prefetch("unit_set", Unit.objects.order_by("name"), to_attr="below")
    monkeypatch.setattr(Unit, "syncing_objects", _manager(Unit, lambda rows: rows.prefetch_related(below)))
    monkeypatch.setattr(Unit, "serialize", serialize)
    top, left, right = unit(), unit(name="left"), unit(name="right")
    rows = [edited(top), *(edited(row, parent_id=top.id) for row in (right, left))]
    result = assert_same(rows, [left])
    assert json.loads(result.store[top.id]["serialized"])["below"] == ["left", "right"]


@pytest.mark.parametrize("is_stored", [False, True])
def test_row_of_two_tables_becomes_one_record(is_stored: bool) -> None:
    """Morango takes the link to the parent's table for a reference to itself."""
    lorry = build_zoo_row("lorry", plate="A 1", dirty=False)
    result = assert_same([edited(lorry, load_kg=7)], [lorry] if is_stored else [], profile=PROFILE)
    assert result.store[lorry.id]["_self_ref_fk"] == ("" if is_stored else lorry.id)
    assert json.loads(result.store[lorry.id]["serialized"])["load_kg"] == 7
    assert not result.dirty("model_zoo_vehicle")


def test_row_of_two_tables_is_filtered_by_its_partition() -> None:
    rows = [edited(build_zoo_row("lorry", plate=text, partition=text)) for text in ("a", "b")]
    assert len(assert_same(rows, profile=PROFILE, filter=Filter("a")).counters) == 1


def _manager(model: Any, choose: Callable[[Any], Any]) -> Any:
    class Manager(SyncableModelManager):
        def get_queryset(self) -> Any:
            return choose(super().get_queryset())

    manager = Manager()
    manager.model, manager.name = model, "syncing_objects"
    return manager
