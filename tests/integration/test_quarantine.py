"""Records that ended their workers are left alone until they change, or somebody asks."""

from __future__ import annotations

import json
from io import StringIO
from typing import Any

import pytest
from django.core.management import call_command
from django.db import connection, transaction
from django.test import Client
from django.test.utils import CaptureQueriesContext
from morango.models import Store

import morango_celery
from morango_celery.deserialization.quarantine import QUARANTINED
from morango_celery.models import Batch, Run
from morango_celery.runs.attempts import attempt_batch
from morango_celery.runs.batching import open_batches
from morango_celery.runs.execution import execute_batch
from morango_celery.runs.producer import start
from morango_celery.runs.status import count_quarantined, status_of
from morango_celery.runs.workers import note_worker
from morango_celery.serialization import serialize_into_store
from tests.support import factories
from tests.support.concurrency import sync
from tests.support.operators import LOOK, OPERATE, logged_in
from tests.support.run_helpers import carry_out, dirty_ids, errors, new_run, rename
from worker.school.models import PROFILE, Attempt, Learner, Lesson

pytestmark = [pytest.mark.django_db, pytest.mark.usefixtures("serializable_in_a_transaction")]

FAILED_TARGET = "django.core.exceptions.ValidationError"


@pytest.fixture
def poison() -> Store:
    """Return a learner that is quarantined, among others; nothing else waits."""
    factories.fill_store(50)
    carry_out()
    unit = Store.objects.filter(model_name="unit").earliest("id")
    said = {"deserialization_error": "It never came to an end.", "deserialization_exception": QUARANTINED}
    return factories.store_row("learner", unit=unit, username="poison", columns=said)


def newer(record: Store) -> None:
    """Let a newer version of the record arrive."""
    record.serialized = json.dumps({**json.loads(record.serialized), "full_name": "Newer"})
    sync([record], record.last_saved_counter + 1, factories.SCHOOL_ID)


def test_record_that_is_given_up_is_quarantined() -> None:
    # Given a record that stands alone and has used up its attempts
    record = factories.store_row("unit")
    (batch,) = open_batches(start(new_run().pk).run)
    Batch.objects.update(attempts=3)

    attempt_batch(batch.pk, batch.ids_sha256)

    assert errors() == {record.id: QUARANTINED}
    record.refresh_from_db()
    assert "It is quarantined: no run tries it again until it changes." in record.deserialization_error
    assert count_quarantined() == 1


def test_quarantined_record_is_in_no_run_and_no_count(poison: Store) -> None:
    lesson = Store.objects.filter(model_name="lesson").earliest("id")
    for _ in range(2):
        rename_lesson(lesson)
        run, stages = carry_out()

        assert stages == [[[lesson.id]]]
        assert (run.records, run.saved, run.failed, run.previous_failures) == (1, 1, 0, 0)
        assert errors() == {poison.id: QUARANTINED}
        assert dirty_ids() == {poison.id}
    assert not Learner.objects.filter(pk=poison.id).exists()


def rename_lesson(lesson: Store) -> None:
    lesson.dirty_bit = True
    rename(lesson, "of no account")


def test_quarantined_record_costs_no_statement(poison: Store) -> None:
    def statements() -> int:
        rename_lesson(Store.objects.filter(model_name="lesson").earliest("id"))
        with CaptureQueriesContext(connection) as queries:
            carry_out()
        return len(queries)

    with_it = statements()
    poison.delete()
    assert statements() == with_it


def test_other_errors_are_tried_again_beside_it(poison: Store) -> None:
    other = factories.store_row(
        "lesson",
        unit_id=json.loads(poison.serialized)["unit_id"],
        columns={"deserialization_error": "no", "deserialization_exception": "a.B"},
    )
    run, _ = carry_out()
    assert (run.saved, run.failed, run.previous_failures) == (1, 0, 1)
    assert Lesson.objects.filter(pk=other.id).exists()
    assert errors() == {poison.id: QUARANTINED}


@pytest.mark.parametrize("edited_here", [False, True], ids=["fast-forward", "merge"])
def test_newer_version_is_tried(poison: Store, edited_here: bool) -> None:
    # Given a newer version of it, which Morango takes as it is or merges
    if edited_here:
        Store.objects.filter(pk=poison.id).update(last_saved_instance="ee" * 16, last_saved_counter=7)
    newer(poison)
    poison.refresh_from_db()
    assert poison.dirty_bit
    assert bool(poison.conflicting_serialized_data) is edited_here

    run, _ = carry_out()

    assert (run.saved, run.failed) == (1, 0)
    name = "Ada Example" if edited_here else "Newer"
    assert Learner.objects.get(pk=poison.id).full_name == name
    assert (errors(), dirty_ids()) == ({}, set())


def test_local_edit_replaces_a_quarantined_record(poison: Store) -> None:
    # Given an app row of it that was edited here
    data = json.loads(poison.serialized)
    learner = Learner.deserialize({**data, "full_name": "Edited"})
    learner._morango_source_id, learner._morango_partition = poison.source_id, poison.partition
    learner.save(update_dirty_bit_to=True)

    serialize_into_store(PROFILE)

    poison.refresh_from_db()
    assert not poison.dirty_bit
    assert count_quarantined() == 0
    assert carry_out()[0].records == 0


def test_retry_errors_includes_a_quarantined_record(poison: Store) -> None:
    run = morango_celery.deserialize(PROFILE, retry_errors=True, in_process=True)
    assert (run.records, run.saved, run.previous_failures) == (1, 1, 1)
    assert Learner.objects.filter(pk=poison.id).exists()


def test_command_names_and_retries_a_quarantined_record(poison: Store) -> None:
    out = StringIO()
    call_command("deserialize", profile=PROFILE, in_process=True, stdout=out)
    assert "1 record is quarantined: `deserialize --retry-errors` retries it" in out.getvalue()
    assert not Learner.objects.filter(pk=poison.id).exists()

    call_command("deserialize", profile=PROFILE, in_process=True, retry_errors=True, stdout=out)
    assert Learner.objects.filter(pk=poison.id).exists()


@pytest.mark.parametrize("skip_erroring", [False, True])
def test_records_that_refer_to_a_quarantined_one_have_their_usual_error(
    poison: Store, skip_erroring: bool
) -> None:
    attempt = factories.store_row("attempt", learner=poison)

    run, _ = carry_out(new_run(skip_erroring=skip_erroring))

    assert run.failed == 1
    attempt.refresh_from_db()
    assert attempt.deserialization_error == f"['learner with id {poison.id} failed to deserialize']"
    assert attempt.deserialization_exception == FAILED_TARGET

    # ... and is saved with it
    newer(poison)
    carry_out()
    assert Attempt.objects.filter(pk=attempt.id).exists()


def test_tree_below_it_waits_for_it() -> None:
    said = {"deserialization_error": "It never ended.", "deserialization_exception": QUARANTINED}
    parent = factories.store_row("unit", columns=said)
    child = factories.store_row("unit", parent=parent)
    carry_out()
    assert errors() == {parent.id: QUARANTINED, child.id: "morango.errors.MorangoDirtyParent"}


def test_batch_that_was_handed_out_before_leaves_it_alone(poison: Store) -> None:
    # Given a record that another run finds to be poison after it was handed out with others
    Store.objects.filter(pk=poison.id).update(deserialization_error=None, deserialization_exception=None)
    other = factories.store_row("lesson", unit_id=json.loads(poison.serialized)["unit_id"])
    (batch,) = open_batches(start(new_run().pk).run)
    assert set(batch.store_ids) == {poison.id, other.id}
    Store.objects.filter(pk=poison.id).update(
        deserialization_error="It never ended.", deserialization_exception=QUARANTINED
    )

    result = execute_batch(batch.pk, batch.ids_sha256).result

    assert result is not None
    assert (result.saved, result.failed) == (1, 0)
    assert errors() == {poison.id: QUARANTINED}


class TestItIsShown:
    def test_waiting_count_of_a_run_excludes_quarantined_records(self, poison: Store) -> None:
        factories.store_row("lesson", unit_id=json.loads(poison.serialized)["unit_id"])
        for option in ("retry_errors", "skip_erroring", "in_process"):
            run = new_run(**{option: True})  # each has one record to try, the lesson or the learner
            status = status_of(run.pk)
            assert (status.waiting, status.quarantined) == (1, 1)
            with transaction.atomic():
                start(run.pk)
                assert status_of(run.pk).waiting == 1
                transaction.set_rollback(True)

    def test_status_of_a_run_counts_quarantined_records(self, poison: Store) -> None:
        run, _ = carry_out()
        out = StringIO()
        call_command("deserialize_status", run.pk, stdout=out)
        assert "  1 record is quarantined: `deserialize --retry-errors` retries it\n" in out.getvalue()
        out = StringIO()
        call_command("deserialize_status", run.pk, json=True, stdout=out)
        assert json.loads(out.getvalue())["quarantined"] == 1

    def test_status_counts_quarantined_records_under_the_runs_filter_only(self, poison: Store) -> None:
        run = Run.objects.create(profile=PROFILE, filter="ab" * 16)
        assert status_of(run.pk).quarantined == 0

    def test_list_of_runs_counts_quarantined_records(self, poison: Store) -> None:
        note_worker("celery@here")
        out = StringIO()
        call_command("deserialize_status", stdout=out)
        assert "\n1 record is quarantined: `deserialize --retry-errors` retries it." in out.getvalue()
        out = StringIO()
        call_command("deserialize_status", json=True, stdout=out)
        assert json.loads(out.getvalue())["quarantined"] == 1

    def test_status_without_quarantined_records_does_not_mention_them(self) -> None:
        note_worker("celery@here")
        factories.fill_store(10)
        run, _ = carry_out()
        for number in (None, run.pk):
            out = StringIO()
            call_command("deserialize_status", run=number, stdout=out)
            assert "quarantined" not in out.getvalue()

    def test_admin_marks_quarantined_records(self, poison: Store) -> None:
        run, _ = carry_out()
        client = logged_in("onlooker", LOOK)
        groups = "/admin/morango_celery/recordinerror/"
        assert "quarantined: no run retries it unless asked to" in client.get(groups).content.decode()
        assert "PoisonRecordError (quarantined)" in client.get(f"{groups}rows/").content.decode()
        page = client.get(f"/admin/morango_celery/run/{run.pk}/change/").content.decode()
        assert f"{QUARANTINED} (quarantined)" in page

    def test_admin_retries_a_quarantined_record(self, poison: Store, settings: Any) -> None:
        settings.MORANGO_CELERY = {"IN_PROCESS": True}
        form = {"action": "retry_partitions", "_selected_action": [poison.id]}
        logged_in("operator", OPERATE).post("/admin/morango_celery/recordinerror/rows/", form)
        assert Learner.objects.filter(pk=poison.id).exists()

    @pytest.mark.urls("tests.integration.metrics_urls")
    def test_metrics_count_quarantined_records(self, poison: Store, client: Client) -> None:
        text = client.get("/internal/metrics").content.decode()
        assert 'morango_celery_quarantined_records{profile="school"} 1.0' in text
        assert 'morango_celery_dirty_records{in_error="yes",profile="school"} 1.0' in text
