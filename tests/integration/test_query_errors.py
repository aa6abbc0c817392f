"""Queries of models' own code that the database refuses are errors of their records."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from django.db import connection
from django.db.models.signals import post_init, pre_delete, pre_init
from morango.models import Store

from morango_celery.models import Run
from tests.integration.in_process import deserialize, sql
from tests.support import factories
from tests.support.run_helpers import errors
from worker.school.models import Learner, Lesson

pytestmark = [pytest.mark.django_db, pytest.mark.usefixtures("serializable_in_a_transaction")]


def refused_query(name: str) -> None:
    """Query a missing table, as a model's own code may do."""
    if name == "refused":
        sql("SELECT 1 FROM no_such_table")


def in_save(monkeypatch: pytest.MonkeyPatch) -> None:
    original = Learner.save

    def save(self: Learner, *args: Any, **options: Any) -> None:
        refused_query(self.username)
        original(self, *args, **options)

    monkeypatch.setattr(Learner, "save", save)


def after_save(monkeypatch: pytest.MonkeyPatch) -> None:
    original = Learner.save

    def save(self: Learner, *args: Any, **options: Any) -> None:
        original(self, *args, **options)
        refused_query(self.username)

    monkeypatch.setattr(Learner, "save", save)


def in_clean_fields(monkeypatch: pytest.MonkeyPatch) -> None:
    original = Learner.clean_fields

    def clean_fields(self: Learner, *args: Any, **options: Any) -> None:
        refused_query(self.username)
        original(self, *args, **options)

    monkeypatch.setattr(Learner, "clean_fields", clean_fields)


def in_deserialize(monkeypatch: pytest.MonkeyPatch) -> None:
    original = Learner.deserialize.__func__

    def own(cls: Any, data: Any, sync_filter: Any = None) -> Any:
        refused_query(data["username"])
        return original(cls, data, sync_filter=sync_filter)

    monkeypatch.setattr(Learner, "deserialize", classmethod(own))


def in_a_constructor(monkeypatch: pytest.MonkeyPatch) -> None:
    def before(sender: Any, args: Any, kwargs: Any, **_: Any) -> None:
        refused_query(kwargs.get("username", ""))

    monkeypatch.setattr(pre_init, "receivers", list(pre_init.receivers))
    pre_init.connect(before, sender=Learner, weak=False)
    monkeypatch.setattr(pre_init, "sender_receivers_cache", {})


@pytest.mark.parametrize("way", ["together", "one by one"])
@pytest.mark.parametrize("place", [in_save, after_save, in_clean_fields, in_deserialize, in_a_constructor])
def test_query_error_in_models_code_is_an_error_of_its_record(
    monkeypatch: pytest.MonkeyPatch, place: Callable[..., None], way: str, settings: Any
) -> None:
    # Given learners, one of whom makes the model's own code ask for a table that isn't there
    if way == "one by one":
        settings.MORANGO_CELERY = {**settings.MORANGO_CELERY, "SAVE_INDIVIDUALLY": ["school.Learner"]}
    unit = factories.store_row("unit")
    bad = factories.store_row("learner", unit=unit, username="refused")
    good = {factories.store_row("learner", unit=unit).id for _ in range(20)}
    place(monkeypatch)

    run = deserialize()

    # Then that one is in error, and the run goes on
    assert (run.state, run.saved, run.failed) == (Run.State.COMPLETED, 21, 1)
    assert set(Learner.objects.values_list("pk", flat=True)) == good
    ((store_id, exception),) = errors().items()
    assert (store_id, exception) == (
        bad.id,
        f"django.db.utils.{'Programming' if connection.vendor == 'postgresql' else 'Operational'}Error",
    )
    assert "no_such_table" in (Store.objects.get(pk=bad.id).deserialization_error or "")


@pytest.fixture
def deletions() -> list[str]:
    """Three lessons that were deleted elsewhere, the second of which a receiver asks too much about."""
    unit = factories.store_row("unit")
    lessons = [factories.store_row("lesson", unit=unit, title=title) for title in ("a", "refused", "b")]
    deserialize()
    Store.objects.filter(model_name="lesson").update(dirty_bit=True, deleted=True)
    return [lesson.id for lesson in lessons]


@pytest.mark.parametrize("signal", [pre_delete, post_init], ids=["pre_delete", "post_init"])
def test_query_error_in_a_receiver_is_an_error_of_its_record(deletions: list[str], signal: Any) -> None:
    def receive(sender: Any, instance: Lesson, **_: Any) -> None:
        refused_query(instance.title)

    signal.connect(receive, sender=Lesson)
    try:
        run = deserialize()
    finally:
        signal.disconnect(receive, sender=Lesson)

    assert (run.state, run.deleted, run.failed) == (Run.State.COMPLETED, 2, 1)
    assert set(errors()) == {deletions[1]}
    assert list(Lesson.objects.values_list("title", flat=True)) == ["refused"]
