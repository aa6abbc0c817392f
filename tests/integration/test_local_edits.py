"""Edits of app rows before and during a run."""

from __future__ import annotations

import json
from collections.abc import Callable

import pytest

from morango_celery.runs import completion
from morango_celery.runs.batching import open_batches
from morango_celery.runs.execution import execute_batch
from morango_celery.runs.inprocess import run_in_process
from morango_celery.runs.producer import advance, start
from morango_celery.serialization import serialize_into_store
from tests.support.factories import store_row
from tests.support.run_helpers import (
    carry_out,
    dirty_ids,
    edited_unit,
    errors,
    learners_in_order,
    new_run,
    rename,
    unit,
)
from worker.school.models import PROFILE, Attempt, Unit

pytestmark = [pytest.mark.django_db, pytest.mark.usefixtures("serializable_in_a_transaction")]


class TestLocalEdits:
    def test_local_edit_is_not_overwritten(self) -> None:
        # Given a record whose app row was edited here after the last serialization
        row = unit(name="from afar")
        edited_unit(row, "made here")

        run, _ = carry_out()

        # Then the app row is as it was, and the Store row waits, without an error
        local = Unit.objects.get()
        assert (local.name, local._morango_dirty_bit) == ("made here", True)
        assert (run.conflicted, run.saved, run.failed) == (1, 0, 0)
        assert dirty_ids() == {row.id}
        assert errors() == {}

        # When it is serialized next, then Morango merges the two, and the local one wins
        serialize_into_store(PROFILE, None)
        row.refresh_from_db()
        local.refresh_from_db()
        assert json.loads(row.serialized)["name"] == "made here"
        assert "from afar" in row.conflicting_serialized_data
        assert (row.dirty_bit, local._morango_dirty_bit) == (False, False)

    def test_record_left_to_a_local_edit_is_not_handed_out_with_the_rest(
        self, batch_size: Callable[[int], None]
    ) -> None:
        # Given a stage of two batches, in which one record conflicts with an edit; and another stage
        batch_size(2)
        (first, edited), *_ = learners_in_order(3)
        edited.username = "made here"
        edited.save(update_dirty_bit_to=True)
        attempt = store_row("attempt", learner=first, lesson=store_row("lesson", unit_id=edited.unit_id))

        run, _ = carry_out()

        # Then the last stage has what is left of the later models alone
        assert (run.stage_models, run.records, run.saved, run.conflicted) == ("attempt", 5, 4, 1)
        assert list(Attempt.objects.values_list("id", flat=True)) == [attempt.id]

    def test_local_edit_is_not_overwritten_where_another_row_has_the_value(self) -> None:
        # Given a record that claims another row's value, and whose app row was edited here
        (_, there), (row, local) = learners_in_order(2)
        rename(row, there.username)
        local.save(update_dirty_bit_to=True)

        run, _ = carry_out()

        assert (run.saved, run.conflicted, run.failed) == (1, 1, 0)
        assert dirty_ids() == {row.id}

    def test_edit_made_during_the_run_is_merged_at_its_end(self) -> None:
        # Given a run that has handed out a record
        row = unit(name="from afar")
        run = start(new_run(serialize_first=True).pk).run
        (batch,) = open_batches(run)

        # When its app row is edited before the batch is executed
        edited_unit(row, "made here")
        execute_batch(batch.pk, batch.ids_sha256)
        progress = advance(run.pk)
        assert progress.ended
        completion.finalize(progress.run)

        # Then the edit has won, and is in the Store
        row.refresh_from_db()
        assert Unit.objects.get().name == "made here"
        assert json.loads(row.serialized)["name"] == "made here"
        assert not row.dirty_bit

    def test_edits_made_before_the_run_are_merged_first(self) -> None:
        row = unit(name="from afar")
        edited_unit(row, "made here")

        run = run_in_process(new_run(serialize_first=True))

        row.refresh_from_db()
        assert json.loads(row.serialized)["name"] == "made here"
        assert run.conflicted == 0
