"""What `recover_runs` sends again, and what it ends."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from django.utils import timezone
from morango.constants import transfer_statuses
from morango.models import TransferSession
from redis import Redis

from morango_celery import tasks
from morango_celery.models import Batch, Run
from morango_celery.runs.execute import execute_batch
from morango_celery.runs.producer import open_batches, start
from morango_celery.runs.recovery import recover
from tests.integration.ledger import (
    Recorded,
    ago,
    new_run,
    unit,
    waiting_session,
)

pytestmark = [pytest.mark.django_db, pytest.mark.usefixtures("serializable_in_a_transaction")]


class TestRecovery:
    def sent(self, **options: Any) -> set[str]:
        dispatch = Recorded()
        count = recover(dispatch, **options)
        assert count == len(dispatch.sent) == sum(dispatch.sent.values())
        return set(dispatch.sent)

    @pytest.fixture
    def two_batches(self, batch_size: Callable[[int], None]) -> list[Batch]:
        batch_size(1)
        unit()
        unit()
        run = new_run(sent_at=ago(5000))
        return list(open_batches(start(run.pk).run))

    def test_a_run_that_was_never_sent(self) -> None:
        run = new_run(sent_at=None)

        assert self.sent() == {f"run {run.pk}"}

    def test_a_run_is_sent_again_only_after_a_while(self, settings: Any) -> None:
        settings.MORANGO_CELERY = {"RESEND_AFTER_SECONDS": 100}
        late = new_run(sent_at=ago(101))
        fresh = new_run(sent_at=ago(50))

        assert self.sent() == {f"run {late.pk}"}
        assert self.sent(everything=True) == {f"run {late.pk}", f"run {fresh.pk}"}

    def test_a_run_that_nobody_led_from_one_stage_to_the_next(self, two_batches: list[Batch]) -> None:
        for batch in two_batches:
            execute_batch(batch.pk)

        assert self.sent() == {f"run {two_batches[0].run_id}"}

    def test_only_open_batches_that_are_overdue(self, two_batches: list[Batch]) -> None:
        done, late = two_batches
        execute_batch(done.pk)
        Batch.objects.update(sent_at=timezone.now())
        assert self.sent() == set()

        Batch.objects.update(sent_at=ago(5000))
        assert self.sent() == {f"batch {late.pk}"}

        Batch.objects.update(sent_at=None)
        assert self.sent() == {f"batch {late.pk}"}

        Batch.objects.update(sent_at=timezone.now())
        assert self.sent(everything=True) == {f"batch {late.pk}"}

    def test_batches_whose_opener_died_before_it_sent_them(self, two_batches: list[Batch]) -> None:
        assert self.sent() == {f"batch {batch.pk}" for batch in two_batches}

    def test_nothing_of_a_run_in_process(self, two_batches: list[Batch]) -> None:
        new_run(in_process=True)
        Run.objects.update(in_process=True)

        assert self.sent(everything=True) == set()

    @pytest.mark.parametrize("state", [Run.State.FAILED, Run.State.COMPLETED])
    def test_nothing_of_a_run_that_has_ended(self, two_batches: list[Batch], state: Run.State) -> None:
        two_batches[0].run.move_to(state)
        Batch.objects.update(sent_at=None)

        assert self.sent(everything=True) == set()

    def test_what_the_broker_did_not_take_is_not_counted(self, two_batches: list[Batch]) -> None:
        Batch.objects.update(sent_at=None)

        assert recover(Recorded(broker_is_there=False)) == 0

    def test_nothing_is_sent_twice(self, redis_url: str, two_batches: list[Batch]) -> None:
        # Given a pending run and two open batches that were never sent, and a real broker
        pending = new_run(sent_at=None)
        Batch.objects.update(sent_at=None)

        # When recovery runs again and again
        counts = [recover(tasks.CeleryDispatch()) for _ in range(3)]

        # Then it has sent each of them once
        assert counts == [3, 0, 0]
        with Redis.from_url(redis_url) as client:
            assert client.llen("celery") == 3
        pending.refresh_from_db()
        assert pending.sent_at is not None

    @pytest.mark.parametrize(
        ("state", "outcome"),
        [
            (Run.State.COMPLETED, transfer_statuses.COMPLETED),
            (Run.State.FAILED, transfer_statuses.ERRORED),
        ],
    )
    def test_a_session_that_was_not_told_is_told(self, state: Run.State, outcome: str) -> None:
        # Given a run that has ended, by a worker that died before it told the transfer session
        session = waiting_session(transfer_statuses.STARTED)
        run = new_run(transfer_session_id=session.id, handed_over=False, state=state)

        assert self.sent() == set()

        session.refresh_from_db()
        run.refresh_from_db()
        assert (session.transfer_stage_status, run.handed_over) == (outcome, True)

    def test_a_session_that_is_not_ready_yet_is_told_later(self) -> None:
        # Given that Morango has not written STARTED yet
        session = waiting_session(transfer_statuses.PENDING)
        run = new_run(transfer_session_id=session.id, handed_over=False, state=Run.State.COMPLETED)

        recover(Recorded())
        run.refresh_from_db()
        session.refresh_from_db()
        assert (session.transfer_stage_status, run.handed_over) == (transfer_statuses.PENDING, False)

        # When it has, then the next recovery tells it
        TransferSession.objects.update(transfer_stage_status=transfer_statuses.STARTED)
        recover(Recorded())
        session.refresh_from_db()
        assert session.transfer_stage_status == transfer_statuses.COMPLETED
