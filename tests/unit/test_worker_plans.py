"""Plans that a worker makes before its pool forks. No test here may use a database."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
from celery.signals import celeryd_after_setup

from morango_celery.deserialization import rows
from morango_celery.upstream import profiles, registered_models
from morango_celery.worker import bootsteps, plans
from worker.school.models import Lesson


def test_plans_of_all_models_are_made_without_a_database(monkeypatch: pytest.MonkeyPatch) -> None:
    made: set[Any] = set()

    def row_plan(model: Any) -> None:
        made.add(model)
        rows.row_plan(model)

    monkeypatch.setattr(plans, "row_plan", row_plan)
    plans.work_out_plans()
    assert made == {model for profile in profiles() for model in registered_models(profile)}


def test_model_without_a_plan_is_named_and_keeps_no_other_from_its_own(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    made: list[Any] = []

    def row_plan(model: Any) -> None:
        made.append(model)
        if model is Lesson:
            raise RuntimeError("a class property's own")

    monkeypatch.setattr(plans, "row_plan", row_plan)
    plans.work_out_plans()
    assert made.index(Lesson) < len(made) - 1
    assert [record.getMessage() for record in caplog.records] == [
        f"{Lesson._meta.label}: its plan can't be worked out, so its records will fail."
    ]


def test_profile_without_an_order_of_its_models_is_named_and_keeps_no_other_from_its_own(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def steps(profile: str) -> None:
        raise RuntimeError("a class property's own")

    made: list[Any] = []
    monkeypatch.setattr(plans, "steps", steps)
    monkeypatch.setattr(plans, "row_plan", made.append)
    plans.work_out_plans()
    assert [record.getMessage() for record in caplog.records] == [
        f"{profile}: the order of its models can't be worked out, so its runs will fail."
        for profile in profiles()
    ]
    assert made == [model for profile in profiles() for model in registered_models(profile)]


def test_worker_makes_plans_as_it_starts(monkeypatch: pytest.MonkeyPatch) -> None:
    called: list[str] = []
    for name in ("note_limits", "require_processes", "work_out_plans"):
        monkeypatch.setattr(bootsteps, name, lambda *_, name=name: called.append(name))
    celeryd_after_setup.send(sender="worker", instance=SimpleNamespace())
    assert called[-1] == "work_out_plans"
