"""Bulk, captured or each: the way a model is written changes nothing about the result."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
from django.db.models import signals

from morango_celery import deserialize_from_store
from morango_celery.deserialization.traits import WriteStrategy, traits_of
from tests.model_zoo.models import Lorry
from tests.parity.harness import app_row, assert_same
from tests.support.comparison import run
from tests.support.factories import SCHOOL_ID, build_school, build_store_row
from worker.school.models import Attempt, Feedback, Learner, Lesson, Unit

ALL = ("school.Unit", "school.Learner", "school.Lesson", "school.Attempt", "school.Feedback")


@pytest.fixture(params=[(), ALL], ids=["chosen", "each"], autouse=True)
def _way(request: pytest.FixtureRequest, settings: Any) -> None:
    settings.MORANGO_CELERY = {**settings.MORANGO_CELERY, "SAVE_INDIVIDUALLY": request.param}


def test_overrides_choose_the_write_strategy(settings: Any) -> None:
    settings.MORANGO_CELERY = {}
    strategies = {
        model: traits_of(model).write_strategy for model in (Unit, Learner, Lesson, Attempt, Feedback, Lorry)
    }
    assert strategies.pop(Learner) is WriteStrategy.CAPTURED_SAVE
    assert strategies.pop(Lorry) is WriteStrategy.INDIVIDUAL
    assert set(strategies.values()) == {WriteStrategy.BULK}


def test_school_is_saved_by_every_strategy() -> None:
    assert not assert_same(build_school(60)).errors


def test_own_code_runs_before_the_row_is_written() -> None:
    unit = build_store_row("unit")
    learner = build_store_row("learner", unit=unit, full_name="ÁDA  Example", search_name="")
    assert assert_same([unit, learner]).app["learner"][0]["search_name"] == "áda example"


def test_failures_of_every_kind_cost_only_their_records() -> None:
    unit = build_store_row("unit")
    good = [build_store_row("learner", unit=unit) for _ in range(6)]
    refused = [build_store_row("learner", unit=unit, school_id="ab" * 16) for _ in range(2)]
    doubled = build_store_row("learner", unit=unit, username=good[2].source_id)
    invalid = build_store_row("learner", unit=unit, birth_year=1)
    rows = [unit, *good[:3], refused[0], doubled, *good[3:], invalid, refused[1]]
    result = assert_same(rows)
    assert len(result.errors) == 4
    assert len(result.app["learner"]) == 6


def test_failing_parent_takes_its_children_along_and_no_others() -> None:
    top = build_store_row("unit")
    broken = build_store_row("unit", parent=top)
    broken.serialized = broken.serialized.replace(f'"school_id": "{SCHOOL_ID}"', '"school_id": "short"')
    child = build_store_row("unit", parent=broken)
    grandchild = build_store_row("unit", parent=child)
    sibling = build_store_row("unit", parent=top)
    invalid = build_store_row("unit", parent=child, name=None)
    result = assert_same([invalid, grandchild, child, sibling, broken, top])
    assert set(result.errors) == {broken.id, child.id, grandchild.id, invalid.id}
    assert result.errors[invalid.id][1] == "morango.errors.MorangoDirtyParent"
    assert result.ids("unit") == {top.id, sibling.id}


@contextmanager
def _heard() -> Iterator[list[str]]:
    heard: list[str] = []
    receivers = []
    for name in ("pre_save", "post_save", "pre_delete", "post_delete"):

        def receive(sender: Any, name: str = name, **kwargs: Any) -> None:
            if sender._meta.app_label == "school":
                heard.append(name)

        receivers.append((getattr(signals, name), receive))
    for signal, receive in receivers:
        signal.connect(receive)
    try:
        yield heard
    finally:
        for signal, receive in receivers:
            signal.disconnect(receive)


def test_only_pre_delete_is_sent() -> None:
    unit = build_store_row("unit")
    learner = build_store_row("learner", unit=unit)
    gone = build_store_row("unit", deleted=True)

    def ours(*args: Any, **kwargs: Any) -> None:
        with _heard() as heard:
            deserialize_from_store(*args, **kwargs)
        assert heard == ["pre_delete"]

    assert run(ours, [unit, learner, gone], app=[app_row(gone)]).aborted is None
