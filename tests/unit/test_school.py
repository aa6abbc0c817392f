"""The sample models meet Morango's rules for syncable models."""

from __future__ import annotations

import json
from typing import Any

import pytest
from django.core.exceptions import ValidationError
from django.db import IntegrityError
from morango.models import Filter, ScopeDefinition, Store, SyncableModel
from morango.registry import syncable_models
from morango.sync.operations import _deserialize_from_store, _serialize_into_store

from tests.support import factories
from worker.school.models import PROFILE, Account, Attempt, Feedback, Learner, Lesson, Unit, WrongSchoolError

pytestmark = pytest.mark.django_db


def make_school() -> tuple[Unit, Learner, Lesson, Attempt, Feedback]:
    unit = Unit.objects.create(school_id=factories.SCHOOL_ID, name="School")
    learner = Learner.objects.create(
        school_id=factories.SCHOOL_ID, unit=unit, username="ada", full_name="Ada  EXAMPLE"
    )
    lesson = Lesson.objects.create(school_id=factories.SCHOOL_ID, unit=unit, title="Fractions")
    attempt = Attempt.objects.create(
        learner=learner, lesson=lesson, score=0.5, answered_at="2026-01-02T03:04:05Z"
    )
    return unit, learner, lesson, attempt, Feedback.objects.create(attempt=attempt, text="Well done")


def test_models_are_registered_in_foreign_key_order() -> None:
    names = [model.morango_model_name for model in syncable_models.get_models(PROFILE)]

    assert sorted(names) == ["attempt", "feedback", "learner", "lesson", "unit"]
    assert names.index("unit") < names.index("learner") < names.index("attempt") < names.index("feedback")


def test_ids_and_partitions_pass_the_check_of_a_pushed_record() -> None:
    for record in make_school():
        # As morango.sync.utils.validate_and_create_buffer_data does with arriving records
        partition = record._morango_partition.replace(record.id, SyncableModel.ID_PLACEHOLDER)
        expected = SyncableModel.compute_namespaced_id(
            partition, record._morango_source_id, record.morango_model_name
        )
        assert record.id == expected
        assert record._morango_partition in Filter(factories.SCHOOL_ID)


def test_learner_with_all_that_belongs_to_it_is_one_partition() -> None:
    _, learner, _, attempt, feedback = make_school()

    expected = f"{factories.SCHOOL_ID}:learner:{learner.id}"
    assert {record._morango_partition for record in (learner, attempt, feedback)} == {expected}


def test_saving_a_learner_derives_its_search_name() -> None:
    _, learner, *_ = make_school()

    learner.refresh_from_db()
    assert learner.search_name == "ada example"


def test_saving_some_fields_of_a_learner_keeps_its_search_name_true() -> None:
    _, learner, *_ = make_school()

    learner.full_name = "Grace Example"
    learner.save(update_fields=["full_name"])

    learner.refresh_from_db()
    assert learner.search_name == "grace example"


def test_learner_of_another_school_is_refused() -> None:
    unit, *_ = make_school()

    with pytest.raises(WrongSchoolError, match="is not its unit's school"):
        Learner.objects.create(school_id="ab" * 16, unit=unit, username="eve", full_name="Eve")
    assert issubclass(WrongSchoolError, ValidationError)


def test_usernames_are_unique() -> None:
    unit, *_ = make_school()

    with pytest.raises(IntegrityError):
        Learner.objects.create(school_id=factories.SCHOOL_ID, unit=unit, username="ada", full_name="Another")


@pytest.mark.parametrize("values", [{"score": 1.1}, {"score": -0.1}, {"kind": "dance"}])
def test_attempt_is_validated(values: dict[str, Any]) -> None:
    *_, attempt, _ = make_school()

    for name, value in values.items():
        setattr(attempt, name, value)
    with pytest.raises(ValidationError):
        attempt.clean_fields()


def test_scope_definition_covers_the_school() -> None:
    scope = ScopeDefinition.retrieve_by_id("school-full").get_scope({"school_id": factories.SCHOOL_ID})

    assert str(scope.read_filter) == str(scope.write_filter) == factories.SCHOOL_ID


@pytest.mark.parametrize(
    ("account", "allowed"),
    [
        (Account(is_superuser=True), True),
        (Account(is_superuser=False), False),
        (Account(is_superuser=True, is_active=False), False),
    ],
)
def test_only_active_superusers_may_have_certificates_signed(account: Account, allowed: bool) -> None:
    params = {"school_id": factories.SCHOOL_ID}

    assert account.has_morango_certificate_scope_permission("school-full", params) is allowed


@pytest.mark.django_db(transaction=True)  # Morango sets the isolation level
def test_store_rows_of_the_factory_look_like_morangos_own() -> None:
    # Given records that Morango itself has serialized
    make_school()
    _serialize_into_store(PROFILE)

    for theirs in Store.objects.all():
        data = json.loads(theirs.serialized)
        school_id = theirs.partition[:32]

        # When the factory builds a row from the same values
        fields = {name: value for name, value in data.items() if not name.startswith("_") and name != "id"}
        fields.pop("school_id", None)
        ours = factories.build_store_row(
            theirs.model_name,
            source_id=theirs.source_id,
            partition=theirs.partition if theirs.model_name == "feedback" else None,
            school_id=school_id,
            **fields,
        )

        # Then it has the same id, partition and keys
        assert (ours.id, ours.partition) == (theirs.id, theirs.partition)
        assert json.loads(ours.serialized) == data


@pytest.mark.django_db(transaction=True)  # Morango sets the isolation level
def test_generated_school_is_deserialized_by_morango_without_an_error() -> None:
    made = factories.fill_store(200)

    _deserialize_from_store(PROFILE)

    assert not Store.objects.filter(dirty_bit=True).exists()
    assert sum(made.values()) == 200
    assert {name: len(rows) for name, rows in factories.app_rows().items()} == dict(made)
