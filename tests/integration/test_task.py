"""The carrier of a record: its model and its outcome."""

from __future__ import annotations

import gc
from typing import Any

import pytest
from django.core.exceptions import ValidationError
from django.db import connection, transaction
from django.test.utils import CaptureQueriesContext
from morango.models import DeletedModels, HardDeletedModels, Store
from morango.registry import syncable_models

from morango_celery.deserialization import (
    DeserializeOutcome,
    DeserializeTask,
    StoreModelSource,
    deserialize_batch,
)
from morango_celery.deserialization.context import BatchContext
from morango_celery.deserialization.parse import instantiate
from morango_celery.deserialization.parsed import Instance
from morango_celery.deserialization.rows import Row, row_plan
from morango_celery.deserialization.traits import traits_of
from morango_celery.errors import RecordError, UnknownModelError
from tests.support import factories
from worker.school.models import PROFILE, Attempt, Feedback, Learner, Lesson, Unit


@pytest.mark.parametrize("model", [Unit, Learner, Lesson, Attempt, Feedback])
def test_model_is_the_class_that_profile_and_name_stand_for(model: Any) -> None:
    store = factories.build_store_row(model.morango_model_name)

    assert DeserializeTask(store).model is model


def test_model_is_looked_up_in_its_profile(monkeypatch: pytest.MonkeyPatch) -> None:
    # Given two profiles that both have a model named lesson
    monkeypatch.setitem(syncable_models.profile_models, "other", {"lesson": Feedback})
    monkeypatch.setitem(syncable_models.models_ready, "other", True)

    stores = [factories.build_store_row("lesson", profile=profile) for profile in (PROFILE, "other")]

    assert [DeserializeTask(store).model for store in stores] == [Lesson, Feedback]


@pytest.mark.parametrize(("profile", "name"), [(PROFILE, "spaceship"), (PROFILE, ""), (PROFILE, "Lesson")])
def test_name_that_nobody_registered_says_what_to_do(profile: str, name: str) -> None:
    carrier = DeserializeTask(factories.build_store_row(name, profile=profile, partition="5c"))

    with pytest.raises(UnknownModelError) as unknown:
        _ = carrier.model

    assert str(unknown.value) == (
        f"No installed app registers a syncable model {name!r} in profile {profile!r}. "
        "Install the app (or the version of it) that does, then deserialize again."
    )
    assert isinstance(unknown.value, RecordError)  # so it is written to the record, and ends nothing


def test_new_carrier_knows_its_record_and_nothing_else() -> None:
    store = factories.build_store_row("lesson")
    context = BatchContext(PROFILE)

    carrier = DeserializeTask(store, context.fk_cache)

    assert carrier.store is store
    assert carrier.fk_cache is context.fk_cache
    assert (carrier.app_model, carrier.parsed, carrier.parent, carrier.propagated_deletion) == (
        None,
        None,
        None,
        None,
    )
    assert (carrier.errors, carrier.has_errors, carrier.is_parsed, carrier.has_local_edit) == (
        [],
        False,
        False,
        False,
    )
    assert carrier.id == store.id
    assert repr(carrier) == f"<DeserializeTask lesson {store.id}>"


def test_outcome_of_an_unresolved_record_is_refused() -> None:
    carrier = DeserializeTask(factories.build_store_row("lesson"))

    with pytest.raises(AssertionError, match="not resolved"):
        _ = carrier.outcome


@pytest.mark.parametrize(
    ("targets", "outcome"),
    [
        ([False], DeserializeOutcome.PROPAGATE_DELETE),
        ([True], DeserializeOutcome.PROPAGATE_HARD_DELETE),
        ([True, False], DeserializeOutcome.PROPAGATE_HARD_DELETE),
        ([False, True], DeserializeOutcome.PROPAGATE_HARD_DELETE),
    ],
)
def test_one_purged_target_is_enough_to_purge(targets: list[bool], outcome: DeserializeOutcome) -> None:
    carrier = DeserializeTask(factories.build_store_row("lesson"))

    for hard in targets:
        carrier.set_propagated_deletion(hard)

    assert carrier.outcome is outcome


@pytest.mark.parametrize(("name", "column"), [("lesson", None), ("unit", "parent_id")])
def test_carrier_names_its_models_key_to_itself(name: str, column: str | None) -> None:
    assert DeserializeTask(factories.build_store_row(name)).self_referential_fk() == column


OUTCOMES = {
    "as it came": ({}, None, False, DeserializeOutcome.SAVE),
    "deleted": ({"deleted": True}, None, False, DeserializeOutcome.DELETE),
    "hard deleted": ({"hard_deleted": True}, None, False, DeserializeOutcome.DELETE),
    "refers to deleted": (
        {},
        DeserializeOutcome.PROPAGATE_DELETE,
        False,
        DeserializeOutcome.PROPAGATE_DELETE,
    ),
    "refers to hard deleted": (
        {},
        DeserializeOutcome.PROPAGATE_HARD_DELETE,
        False,
        DeserializeOutcome.PROPAGATE_HARD_DELETE,
    ),
    "in error": ({}, None, True, DeserializeOutcome.ERROR),
    "deleted, but in error": ({"deleted": True}, None, True, DeserializeOutcome.ERROR),
    "refers to deleted, but in error": (
        {},
        DeserializeOutcome.PROPAGATE_DELETE,
        True,
        DeserializeOutcome.ERROR,
    ),
}


@pytest.mark.parametrize(
    ("columns", "propagated", "failed", "outcome"), OUTCOMES.values(), ids=OUTCOMES.keys()
)
def test_outcome_follows_from_what_is_known(
    columns: dict[str, Any], propagated: DeserializeOutcome | None, failed: bool, outcome: DeserializeOutcome
) -> None:
    carrier = DeserializeTask(factories.build_store_row("lesson", **columns))

    carrier.set_app_model(Lesson())
    carrier.propagated_deletion = propagated
    if failed:
        carrier.add_error(ValidationError("It is bad."))

    assert carrier.outcome is outcome
    assert carrier.has_errors is failed


def test_last_error_says_whether_another_pass_may_help() -> None:
    carrier = DeserializeTask(factories.build_store_row("lesson"))
    first, last = ValueError("first"), ValueError("last")

    carrier.add_error(first, is_retryable=True)
    assert carrier.is_retryable
    carrier.add_error(last)

    assert carrier.errors == [first, last]
    assert not carrier.is_retryable


def test_failed_record_keeps_no_frame_of_its_errors_whose_contexts_go_round() -> None:
    carrier = DeserializeTask(factories.build_store_row("lesson"))
    try:
        try:
            raise KeyError("first")
        except KeyError as first:
            raise ValueError("last") from first
    except ValueError as last:
        error = last
    assert isinstance(error.__context__, KeyError)
    error.__context__.__context__ = error

    carrier.add_error(error)

    assert (error.__traceback__, error.__context__.__traceback__) == (None, None)
    assert isinstance(error.__cause__, KeyError)


@pytest.mark.django_db
def test_records_that_failed_are_forgotten_with_their_batch() -> None:
    # Given records that fail in every way: values, JSON, references, their parent's failure, another's name
    unit, broken = factories.store_row("unit"), factories.store_row("unit", name=None)
    learner = factories.store_row("learner", unit=unit, username="ada")
    failing = [
        broken,
        factories.store_row("unit", parent=broken),
        factories.store_row("unit", serialized="{"),
        factories.store_row("spaceship"),
        factories.store_row("learner", unit=unit, birth_year=1800),
        factories.store_row("learner", unit_id="ab" * 16),
        factories.store_row("learner", unit=broken),
        factories.store_row("learner", unit=unit, username="ada"),
        factories.store_row("attempt", learner=learner, score=2.0),
    ]
    ids = [row.id for row in (unit, learner, *failing)]
    gc.collect()
    gc.disable()
    try:
        # When they are deserialized, and nobody collects garbage
        with transaction.atomic():
            result = deserialize_batch(PROFILE, ids)
        left = [each for each in gc.get_objects() if type(each) is DeserializeTask]
    finally:
        gc.enable()

    # Then no traceback holds a frame that still knows them
    assert (result.saved, result.failed) == (2, len(failing))
    assert left == []


def test_carrier_is_parsed_once_it_has_a_row_or_an_instance() -> None:
    store = factories.build_store_row("lesson", unit_id="ab" * 16)
    plan, lesson = row_plan(Lesson), Lesson(id=store.id)
    assert plan is not None
    carrier = DeserializeTask(store)

    (carrier.parsed,) = plan.rows([store])
    as_row = carrier.is_parsed, carrier.app_model
    carrier.set_app_model(lesson)

    assert as_row == (True, None)
    assert (carrier.is_parsed, carrier.app_model) == (True, lesson)


@pytest.mark.django_db
def test_a_row_and_an_instance_of_one_record_answer_alike() -> None:
    store = factories.build_store_row("attempt", learner_id="ab" * 16, lesson_id="cd" * 16)
    plan, traits = row_plan(Attempt), traits_of(Attempt)
    assert plan is not None
    (row,) = plan.rows([store])
    carrier = DeserializeTask(store)

    instantiate(carrier, BatchContext(PROFILE))

    assert isinstance(row, Row)
    assert isinstance(carrier.parsed, Instance)
    references = [(row.reference(key), carrier.parsed.reference(key)) for key in traits.foreign_keys]
    assert references == [(value, value) for value in ("ab" * 16, "cd" * 16)]
    positions = [traits.fields.index(field) for field in (Attempt._meta.pk, *traits.foreign_keys)]
    assert row.column_values(positions) == carrier.parsed.column_values(positions)
    assert row.column_values(positions) == [store.id, "ab" * 16, "cd" * 16]


@pytest.mark.django_db
def test_model_costs_no_query() -> None:
    factories.store_row("lesson")
    (carrier,) = StoreModelSource(PROFILE).stream()

    with CaptureQueriesContext(connection) as queries:
        assert carrier.model is carrier.model is Lesson

    assert len(queries) == 0


ABSENT = "ab" * 16


@pytest.mark.django_db
@pytest.mark.parametrize(
    ("record", "target", "expected"),
    [
        ({}, {}, DeserializeOutcome.SAVE),
        ({"deleted": True}, {}, DeserializeOutcome.DELETE),
        ({}, {"deleted": True}, DeserializeOutcome.PROPAGATE_DELETE),
        ({}, {"hard_deleted": True}, DeserializeOutcome.PROPAGATE_HARD_DELETE),
        ({"unit_id": ABSENT}, {}, DeserializeOutcome.ERROR),
        ({"title": None}, {}, DeserializeOutcome.ERROR),
    ],
)
def test_each_outcome_leaves_its_trace(
    record: dict[str, Any], target: dict[str, Any], expected: DeserializeOutcome
) -> None:
    # Given a lesson of a unit
    unit = factories.store_row("unit", **target)
    lesson = factories.store_row("lesson", **{"unit": unit, **record})

    # When both are deserialized
    with transaction.atomic():
        result = deserialize_batch(PROFILE, [lesson.id, unit.id])

    # Then the lesson is counted under one outcome
    unit_deleted = int(bool(target))
    counts = (result.saved, result.deleted, result.propagated, result.failed)
    assert (
        counts
        == {
            DeserializeOutcome.SAVE: (2, 0, 0, 0),
            DeserializeOutcome.DELETE: (1, 1, 0, 0),
            DeserializeOutcome.PROPAGATE_DELETE: (0, 1, 1, 0),
            DeserializeOutcome.PROPAGATE_HARD_DELETE: (0, 1, 1, 0),
            DeserializeOutcome.ERROR: (1 - unit_deleted, unit_deleted, 0, 1),
        }[expected]
    )

    # ... and app row, Store row and Morango's deletion tables say so
    stored = Store.objects.get(pk=lesson.id)
    propagated = {DeserializeOutcome.PROPAGATE_DELETE, DeserializeOutcome.PROPAGATE_HARD_DELETE}
    assert Lesson.objects.filter(pk=lesson.id).exists() == (expected is DeserializeOutcome.SAVE)
    assert stored.dirty_bit == bool(stored.deserialization_error) == (expected is DeserializeOutcome.ERROR)
    assert DeletedModels.objects.filter(pk=lesson.id).exists() == (expected in propagated)
    assert HardDeletedModels.objects.filter(pk=lesson.id).exists() == (
        expected is DeserializeOutcome.PROPAGATE_HARD_DELETE
    )
