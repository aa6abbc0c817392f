"""Order of models and their self-references: asked of Morango's registry where it tells them publicly."""

from __future__ import annotations

from typing import Any

import pytest
from morango.models import Store
from morango.registry import syncable_models

from morango_celery.upstream import registered_models, self_referential_fk
from worker.school.models import PROFILE, Lesson, Unit


def test_order_of_models_is_the_registrys() -> None:
    assert registered_models(PROFILE) == syncable_models.get_models(PROFILE)


def test_order_of_models_is_that_of_the_registrys_store_querysets(monkeypatch: pytest.MonkeyPatch) -> None:
    def store_querysets(profile: str) -> list[tuple[Any, Any]]:
        return [(model, Store.objects.filter(profile=profile)) for model in (Lesson, Unit)]

    monkeypatch.setattr(syncable_models, "get_store_querysets", store_querysets, raising=False)

    assert registered_models(PROFILE) == [Lesson, Unit]


@pytest.mark.parametrize("found", ["parent_id", Unit._meta.get_field("parent")])
def test_self_reference_is_that_of_the_registry(found: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    assert (self_referential_fk(Unit), self_referential_fk(Lesson)) == ("parent_id", None)

    method = {Lesson: found}.get
    monkeypatch.setattr(syncable_models, "get_self_referential_fk", method, raising=False)

    assert (self_referential_fk(Unit), self_referential_fk(Lesson)) == (None, "parent_id")
