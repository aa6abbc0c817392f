"""Batches that were tried too often, split into parts. Without worker processes."""

from __future__ import annotations

import pytest
from django.db import transaction
from morango.models import DeletedModels, Store

from morango_celery.models import Batch, Run
from morango_celery.runs.attempts import attempt_batch
from morango_celery.runs.execution import Execution
from tests.integration.attempts import attempt, one_batch, still_open, used_up, work_off
from tests.support import factories
from tests.support.run_helpers import carry_out, errors, unit
from worker.school.models import Attempt, Unit

pytestmark = [pytest.mark.django_db, pytest.mark.usefixtures("serializable_in_a_transaction")]


class TestSplitting:
    @pytest.mark.parametrize("last_first", [False, True])
    def test_result_is_that_of_the_whole_batch(self, last_first: bool) -> None:
        # Given a school, with a chain in its tree and records that fail, deserialized in one batch
        def fill() -> None:
            factories.fill_store(100)
            deepest = unit(source_id="chain")
            for number in range(30):
                deepest = unit(deepest, source_id=f"chain-{number}")
            below = factories.store_row("unit", source_id="orphan", parent_id="ab" * 16)
            unit(below, source_id="of an orphan")
            gone = unit(deleted=True, source_id="gone")
            factories.store_row("lesson", source_id="of one gone", unit=gone)
            factories.store_row("lesson", source_id="untitled", unit=deepest, title=None)

        fill()
        with transaction.atomic():
            whole, _ = carry_out()
            rows, failed = factories.app_rows(), errors()
            transaction.set_rollback(True)

        # When it is split, and the parts are executed in one order or the other
        batch = used_up(one_batch())
        assert not attempt(batch).stage_is_done
        parts = still_open(batch.run)
        assert [part.size for part in parts] == [14] * 9 + [10]
        run = work_off(batch.run, last_first=last_first)

        # Then the result is the same, and adds up
        assert factories.app_rows() == rows
        assert errors() == failed
        assert len(failed) == 3
        for name in ("records", *Run.COUNTS):
            assert getattr(run, name) == getattr(whole, name)
        assert run.open_batches == 0

    def test_message_that_comes_again_goes_on_with_the_parts(self) -> None:
        # Given a worker that died after it had split a batch, before it sent the first part
        factories.fill_store(20)
        batch = used_up(one_batch())
        attempt(batch)
        first, second, *_ = still_open(batch.run)

        # When its message comes again, then that part is to be sent
        again = attempt_batch(batch.pk, batch.ids_sha256)
        assert again == Execution(batch.run_id, None, stage_is_done=False, batches_to_send=(first.pk,))

        # ... and so is the next, when the first part's comes again, until all are done
        assert attempt(first).batches_to_send == (second.pk,)
        assert attempt_batch(first.pk, first.ids_sha256).batches_to_send == (second.pk,)
        work_off(batch.run)
        assert attempt_batch(batch.pk, batch.ids_sha256) == Execution(batch.run_id, None, stage_is_done=False)

    def test_parts_are_executed_one_after_another(self) -> None:
        # Given that all parts of a batch are sent at once, as recovery does
        factories.fill_store(20)
        batch = used_up(one_batch())
        attempt(batch)
        first, *others = still_open(batch.run)

        # When others come before it is their turn, or while a part of an earlier one is open
        too_early = [attempt(part) for part in others]
        Batch.objects.filter(pk=first.pk).update(attempts=1)
        (lone,) = attempt(first).batches_to_send
        too_early += [attempt(part) for part in others]

        # Then nothing comes of it, nor does it count as an attempt
        nothing = Execution(batch.run_id, None, stage_is_done=False)
        assert too_early == [nothing] * len(too_early)
        counted = Batch.objects.exclude(attempts=0).values_list("pk", "attempts")
        assert dict(counted) == {batch.pk: 3, first.pk: 1}
        assert not Unit.objects.exists()
        assert attempt(lone).result is not None

    @pytest.mark.parametrize("last_first", [False, True])
    def test_deletion_spreads_over_parts(self, last_first: bool) -> None:
        # Given a learner with an attempt, then a newer version of all, whose unit is deleted
        home = unit()
        learner = factories.store_row("learner", unit=home)
        factories.store_row("attempt", learner=learner)
        carry_out()
        Store.objects.update(dirty_bit=True)
        Store.objects.filter(pk=home.pk).update(deleted=True)
        batch = used_up(one_batch())
        attempt(batch)

        run = work_off(batch.run, last_first=last_first)

        assert (run.deleted, run.propagated, run.failed, run.pass_number) == (1, 2, 0, 1)
        assert DeletedModels.objects.count() == 2
        assert not Attempt.objects.exists()

    def test_part_has_one_attempt_and_a_record_that_stands_alone_all_of_them(self) -> None:
        factories.fill_store(20)
        batch = used_up(one_batch())
        first, *_ = attempt(batch).batches_to_send
        assert Batch.objects.get(pk=first).size == 2
        Batch.objects.filter(pk=first).update(attempts=1)

        (lone,) = attempt(first).batches_to_send

        Batch.objects.filter(pk=lone).update(attempts=2)
        assert attempt(lone).result is not None
        assert not errors()
