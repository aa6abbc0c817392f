"""Several messages for one batch, and several batches of a stage, at the same time."""

from __future__ import annotations

import threading
from functools import partial
from typing import Any

import pytest

from morango_celery.models import Batch
from morango_celery.runs import attempts
from morango_celery.runs.attempts import attempt_batch
from morango_celery.runs.batching import open_batches
from morango_celery.runs.execution import Execution, execute_batch
from morango_celery.runs.message import Message
from morango_celery.runs.producer import start
from tests.integration.attempts import attempt, one_batch, used_up, work_off
from tests.support import factories
from tests.support.concurrency import together
from tests.support.run_helpers import ago, errors, new_run, unit
from worker.school.models import Unit

pytestmark = [pytest.mark.django_db, pytest.mark.usefixtures("serializable_in_a_transaction")]


@pytest.mark.needs_postgresql
@pytest.mark.django_db(transaction=True)
class TestSimultaneousMessages:
    def test_message_for_a_batch_that_is_executed_is_dropped_without_waiting(
        self, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        # Given a worker in the middle of a batch
        unit()
        batch = one_batch()
        at_it, dropped = threading.Event(), threading.Event()

        def clean_fields(*args: Any, **kwargs: Any) -> None:
            at_it.set()
            assert dropped.wait(60)

        monkeypatch.setattr(Unit, "clean_fields", clean_fields)

        def other() -> Execution:
            assert at_it.wait(60)
            try:
                return attempt_batch(batch.pk, batch.ids_sha256, Message("another"))
            finally:
                dropped.set()

        # When another message comes for it, then that ends first, and is no attempt
        execution, nothing = together(
            [lambda: attempt_batch(batch.pk, batch.ids_sha256, Message("one")), other]
        )

        assert execution.result.saved == 1
        assert nothing == Execution(None, None, stage_is_done=False)
        batch.refresh_from_db()
        assert (batch.state, batch.attempts, batch.attempted_by) == (Batch.State.DONE, 1, "")

    @pytest.mark.parametrize("max_attempts", [1, 3])
    def test_message_that_comes_before_another_ones_batch_is_locked_takes_its_place(
        self, monkeypatch: pytest.MonkeyPatch, settings: Any, max_attempts: int
    ) -> None:
        # Given a worker that has counted its attempt, and is held up before it locks the batch
        settings.MORANGO_CELERY = {"MAX_ATTEMPTS": max_attempts}
        unit()
        batch = one_batch()
        executed = execute_batch

        def held_up(*arguments: Any, **options: Any) -> Execution:
            with monkeypatch.context() as patch:
                patch.setattr(attempts, "execute_batch", executed)
                executions.append(attempt_batch(batch.pk, batch.ids_sha256, Message("another")))
            return executed(*arguments, **options)

        executions: list[Execution] = []
        monkeypatch.setattr(attempts, "execute_batch", held_up)

        # When another message comes for it, then that executes it, and both are one attempt
        executions.append(attempt_batch(batch.pk, batch.ids_sha256, Message("one")))

        assert [execution.result is not None for execution in executions] == [True, False]
        batch.refresh_from_db()
        assert (batch.state, batch.attempts, errors()) == (Batch.State.DONE, 1, {})

    def test_message_that_is_delivered_again_is_another_attempt_at_once(self) -> None:
        # Given a batch whose worker was lost a moment ago
        factories.fill_store(20)
        batch = one_batch()
        Batch.objects.update(attempts=1, attempted_by="one", attempted_at=ago(0))

        # When its message comes again
        assert attempt_batch(batch.pk, batch.ids_sha256, Message("one")).result is not None

        # Then that counts
        batch.refresh_from_db()
        assert batch.attempts == 2

    def test_batch_that_another_message_has_just_begun_for_the_last_time_is_not_split(self) -> None:
        factories.fill_store(20)
        batch = one_batch()
        Batch.objects.update(attempts=3, attempted_by="one", attempted_at=ago(0))

        assert attempt_batch(batch.pk, batch.ids_sha256, Message("another")).result is not None

        batch.refresh_from_db()
        assert (batch.state, batch.attempts) == (Batch.State.DONE, 3)

    def test_batches_of_a_stage_are_split_at_the_same_time(self, settings: Any) -> None:
        settings.MORANGO_CELERY = {"BATCH_SIZE_RECORDS": 20}
        for _ in range(80):
            unit()
        run = start(new_run().pk).run
        batches = [used_up(batch) for batch in open_batches(run)]

        executions = together([partial(attempt, batch) for batch in batches])

        run.refresh_from_db()
        assert run.open_batches == Batch.objects.filter(state=Batch.State.OPEN).count() == 40
        assert len({part for execution in executions for part in execution.batches_to_send}) == 4
        assert work_off(run).saved == 80
