"""Recovery: the messages that `recover_runs` resends, and the runs that it ends."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any

import pytest
from django.db import connection
from morango.constants import transfer_statuses
from morango.models import TransferSession
from redis import Redis

from morango_celery.errors import RunFailedError
from morango_celery.messaging.dispatch import CeleryDispatch
from morango_celery.models import Batch, Run
from morango_celery.runs.batching import open_batches
from morango_celery.runs.execution import execute_batch
from morango_celery.runs.inprocess import run_in_process
from morango_celery.runs.overdue import OPENING, note_sent
from morango_celery.runs.producer import start
from morango_celery.runs.recovery import recover
from morango_celery.signals import run_finished
from tests.support.concurrency import together
from tests.support.queues import lengths
from tests.support.run_helpers import (
    RecordingDispatcher,
    ago,
    dirty_ids,
    new_run,
    sent,
    unit,
    waiting_session,
)
from worker.school.models import Unit

pytestmark = [pytest.mark.django_db, pytest.mark.usefixtures("serializable_in_a_transaction")]


class TestRecovery:
    def sent(self, **options: Any) -> set[str]:
        dispatch = RecordingDispatcher()
        count = recover(dispatch, **options)
        assert count == len(dispatch.sent) == sum(dispatch.sent.values())
        return set(dispatch.sent)

    @pytest.fixture
    def two_batches(self, batch_size: Callable[[int], None]) -> list[Batch]:
        batch_size(1)
        unit()
        unit()
        run = new_run(**sent(5000))
        return list(open_batches(start(run.pk).run))

    def test_run_that_was_never_sent_is_sent(self) -> None:
        run = new_run(sent_at=None)

        assert self.sent() == {f"run {run.pk}"}

    def test_run_is_sent_again_only_after_a_while(self, settings: Any) -> None:
        settings.MORANGO_CELERY = {"STALLED_AFTER_SECONDS": 100}
        late, fresh = new_run(), new_run()
        note_sent(Run.objects.all())
        fresh.refresh_from_db()
        assert fresh.sent_at is not None
        assert fresh.overdue_at is not None
        assert (fresh.overdue_at - fresh.sent_at).total_seconds() == pytest.approx(100, abs=1)
        assert self.sent() == set()

        Run.objects.filter(pk=late.pk).update(overdue_at=ago(1))
        assert self.sent() == {f"run {late.pk}"}
        assert self.sent(all_unfinished=True) == {f"run {late.pk}", f"run {fresh.pk}"}

    def test_run_stuck_between_stages_is_sent_once_overdue(self, two_batches: list[Batch]) -> None:
        for batch in two_batches:
            execute_batch(batch.pk)
        assert self.sent() == set()

        Run.objects.update(overdue_at=ago(1))
        assert self.sent() == {f"run {two_batches[0].run_id}"}

    def test_only_overdue_open_batches_are_sent(self, two_batches: list[Batch]) -> None:
        done, late = two_batches
        execute_batch(done.pk)
        Batch.objects.update(**sent())
        assert self.sent() == set()

        Batch.objects.update(**sent(5000))
        assert self.sent() == {f"batch {late.pk}"}

        Batch.objects.update(sent_at=None, overdue_at=None)
        assert self.sent() == {f"batch {late.pk}"}

        Batch.objects.update(**sent())
        assert self.sent(all_unfinished=True) == {f"batch {late.pk}"}

    def test_unsent_batches_are_sent_once_overdue(self, two_batches: list[Batch]) -> None:
        assert self.sent() == set()

        Batch.objects.update(overdue_at=ago(1))
        assert self.sent() == {f"batch {batch.pk}" for batch in two_batches}

    @pytest.mark.needs_postgresql
    def test_recovery_locks_nothing_that_is_not_overdue(self) -> None:
        # Given runs that were sent a moment ago, and one that is overdue
        for _ in range(3):
            new_run()
        note_sent(Run.objects.all())
        late = new_run(sent_at=None)

        # When recovery has looked for what was lost, in a transaction that isn't over
        assert self.sent() == {f"run {late.pk}"}

        # Then it holds no other run: a worker that begins with one now would take it for another one's
        with connection.cursor() as cursor:
            cursor.execute(
                "SELECT objid FROM pg_locks WHERE locktype = 'advisory' AND classid = %s", [OPENING]
            )
            assert cursor.fetchall() == [(late.pk,)]

    def test_end_that_cannot_be_followed_up_lets_nobody_wait(self) -> None:
        # Given runs that have ended long ago, one of whose ends can't be followed up, and one that waits
        first, second = (new_run(state=Run.State.COMPLETED, finished_at=ago(5000)) for _ in range(2))
        late = new_run(sent_at=None)

        def refuse(run: Run, **kwargs: Any) -> None:
            if run.pk == first.pk:
                raise RuntimeError("not today")

        # When recovery comes upon them
        dispatch = RecordingDispatcher()
        run_finished.connect(refuse)
        try:
            with pytest.raises(RuntimeError, match="not today"):
                recover(dispatch)
        finally:
            run_finished.disconnect(refuse)

        # Then what waits was sent, and the other end was followed up
        assert set(dispatch.sent) == {f"run {late.pk}"}
        assert list(Run.objects.filter(finalized=True)) == [second]

    def test_run_in_process_is_not_sent(self, two_batches: list[Batch]) -> None:
        new_run(in_process=True)
        Run.objects.update(in_process=True)

        assert self.sent(all_unfinished=True) == set()

    @pytest.mark.parametrize("state", [Run.State.FAILED, Run.State.COMPLETED, Run.State.CANCELLED])
    def test_ended_run_is_not_sent(self, two_batches: list[Batch], state: Run.State) -> None:
        two_batches[0].run.move_to(state)

        assert self.sent(all_unfinished=True) == set()

    def test_message_that_the_broker_refused_is_not_counted(self, two_batches: list[Batch]) -> None:

        assert recover(RecordingDispatcher(broker_is_there=False)) == 0

    def test_broker_that_is_not_there_is_tried_once_and_what_was_to_be_sent_waits(
        self, two_batches: list[Batch]
    ) -> None:
        # Given what was sent a moment ago, to a broker that has lost it and doesn't answer
        pending = new_run(**sent())
        Batch.objects.update(**sent())
        dispatch = RecordingDispatcher(broker_is_there=False)

        # When everything is to be sent again
        assert recover(dispatch, all_unfinished=True) == 0

        # Then it is tried with one message, and the next recovery sends them all
        assert sum(dispatch.sent.values()) == 1
        assert self.sent() == {f"run {pending.pk}", *(f"batch {batch.pk}" for batch in two_batches)}

    def test_only_named_runs_are_sent(self, two_batches: list[Batch]) -> None:
        named, other = new_run(sent_at=None), new_run(sent_at=None)
        ids = [named.pk, two_batches[0].run_id]

        Batch.objects.update(overdue_at=ago(1))
        assert self.sent(run_ids=[]) == set()
        assert self.sent(run_ids=[other.pk]) == {f"run {other.pk}"}
        assert self.sent(run_ids=ids) == {f"run {named.pk}", *(f"batch {batch.pk}" for batch in two_batches)}

    def test_nothing_is_sent_twice(self, redis_url: str, two_batches: list[Batch]) -> None:
        # Given a pending run and two open batches that were never sent, and a real broker
        pending = new_run(sent_at=None)
        Batch.objects.update(overdue_at=ago(1))

        # When recovery runs again and again
        counts = [recover(CeleryDispatch()) for _ in range(3)]

        # Then it has sent each of them once
        assert counts == [3, 0, 0]
        with Redis.from_url(redis_url) as client:
            assert lengths(client) == {0: 2, 3: 1}
        pending.refresh_from_db()
        assert pending.sent_at is not None

    @pytest.mark.usefixtures("redis_url")
    def test_channel_that_kombu_loses_while_it_sends_fails_no_run(self) -> None:
        # Given a channel that is closed between two looks that kombu takes at it
        pending = new_run(sent_at=None)

        def closed(*_: Any, **__: Any) -> None:
            raise AttributeError("'NoneType' object has no attribute 'client'")

        with pytest.MonkeyPatch.context() as patch:
            patch.setattr("kombu.messaging.maybe_declare", closed)
            assert recover(CeleryDispatch()) == 0

        # Then the run waits in the ledger, and is sent by a channel that is open
        pending.refresh_from_db()
        assert (pending.state, pending.sent_at) == (Run.State.PENDING, None)
        assert recover(CeleryDispatch()) == 1

    @pytest.mark.parametrize(
        ("state", "outcome"),
        [
            (Run.State.COMPLETED, transfer_statuses.COMPLETED),
            (Run.State.FAILED, transfer_statuses.ERRORED),
            (Run.State.CANCELLED, transfer_statuses.ERRORED),
        ],
    )
    def test_session_that_was_not_told_is_told(self, state: Run.State, outcome: str) -> None:
        # Given a run that has ended, by a worker that died before it told the transfer session
        session = waiting_session(transfer_statuses.STARTED)
        run = new_run(transfer_session_id=session.id, session_notified=False, state=state)

        assert self.sent() == set()

        session.refresh_from_db()
        run.refresh_from_db()
        assert (session.transfer_stage_status, run.session_notified) == (outcome, False)

    def test_session_that_is_not_ready_yet_is_told_later(self) -> None:
        # Given that Morango has not written STARTED yet
        session = waiting_session(transfer_statuses.PENDING)
        run = new_run(transfer_session_id=session.id, session_notified=False, state=Run.State.COMPLETED)

        recover(RecordingDispatcher())
        run.refresh_from_db()
        session.refresh_from_db()
        assert (session.transfer_stage_status, run.session_notified) == (transfer_statuses.PENDING, False)

        # When it has, then the next recovery tells it
        TransferSession.objects.update(transfer_stage_status=transfer_statuses.STARTED)
        recover(RecordingDispatcher())
        session.refresh_from_db()
        assert session.transfer_stage_status == transfer_statuses.COMPLETED


class TestRunsInProcess:
    """Nobody but the process that wrote it carries such a run out."""

    @pytest.fixture
    def begun(self) -> Run:
        unit()
        return start(new_run(in_process=True).pk).run

    def last_heard_of(self, run: Run, seconds: float) -> None:
        Run.objects.filter(pk=run.pk).update(last_activity_at=ago(seconds))

    def test_run_of_a_dead_process_fails(self, begun: Run) -> None:
        self.last_heard_of(begun, 4 * 900 + 1)
        heard: list[Run] = []

        def receive(run: Run, **kwargs: Any) -> None:
            heard.append(run)

        run_finished.connect(receive)
        try:
            assert recover(RecordingDispatcher()) == 0
        finally:
            run_finished.disconnect(receive)

        begun.refresh_from_db()
        assert begun.state == Run.State.FAILED
        assert "Its process was not heard of since" in begun.error
        assert (begun.finalized, heard) == (True, [begun])
        assert len(dirty_ids()) == 1

    def test_run_in_process_that_never_began_fails(self) -> None:
        waiting = new_run(in_process=True)
        self.last_heard_of(waiting, 4 * 900 + 1)

        recover(RecordingDispatcher())

        waiting.refresh_from_db()
        assert waiting.state == Run.State.FAILED

    def test_run_with_recent_activity_goes_on(self, begun: Run) -> None:
        self.last_heard_of(begun, 4 * 900 - 60)
        recover(RecordingDispatcher(), all_unfinished=True)
        begun.refresh_from_db()
        assert begun.state == Run.State.RUNNING

    def test_each_batch_is_a_sign_of_life(self, begun: Run) -> None:
        self.last_heard_of(begun, 5000)

        execute_batch(next(open_batches(begun)).pk)

        begun.refresh_from_db()
        assert begun.last_activity_at > ago(60)

    @pytest.mark.needs_postgresql  # on SQLite it is known to live
    def test_process_notices_that_its_run_was_ended(self, batch_size: Callable[[int], None]) -> None:
        # Given a process that is held up between two batches for a long time
        batch_size(1)
        unit()
        unit()
        run = new_run(in_process=True)

        def hold_up(run: Run) -> None:
            self.last_heard_of(run, 5000)
            recover(RecordingDispatcher())

        # When it goes on, then it says what has happened, and leaves the rest alone
        with pytest.raises(RunFailedError, match=r"ended from elsewhere .* not heard of since"):
            run_in_process(run, hold_up)
        assert len(dirty_ids()) == 1
        run.refresh_from_db()
        assert (run.state, run.saved) == (Run.State.FAILED, 1)

    @pytest.mark.needs_postgresql
    @pytest.mark.django_db(transaction=True)
    def test_run_in_the_middle_of_a_long_batch_goes_on(
        self, begun: Run, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        # Given a batch that takes longer than recovery's patience
        self.last_heard_of(begun, 5000)
        at_it, go_on = threading.Event(), threading.Event()

        def save(*args: Any, **kwargs: Any) -> None:
            at_it.set()
            assert go_on.wait(20)

        monkeypatch.setattr(Unit, "clean_fields", save)

        def recover_meanwhile() -> str:
            assert at_it.wait(20)
            try:
                recover(RecordingDispatcher())
                return str(Run.objects.get().state)
            finally:
                go_on.set()

        _, state = together([lambda: execute_batch(next(open_batches(begun)).pk), recover_meanwhile])

        assert state == Run.State.RUNNING
        assert Run.objects.get().done == 1


@pytest.mark.skipif(connection.vendor != "postgresql", reason="SQLite's one writer carries runs out itself")
@pytest.mark.django_db(transaction=True)
def test_sender_does_not_wait_for_batches_in_execution(redis_url: str) -> None:
    # Given two batches, the first of which a worker is busy with
    unit()
    (busy,) = open_batches(start(new_run(**sent(5000)).pk).run)
    unit()
    (free,) = open_batches(start(new_run(**sent(5000)).pk).run)
    other = connection.copy()
    other.set_autocommit(False)
    with other.cursor() as cursor, connection.cursor() as ours:
        cursor.execute("SELECT 1 FROM morango_celery_batch WHERE id = %s FOR UPDATE", [busy.pk])
        ours.execute("SET lock_timeout = '2s'")

        # When both are sent
        were_sent = [CeleryDispatch().batch(batch) for batch in (busy, free)]

        ours.execute("RESET lock_timeout")
    other.rollback()
    other.close()

    # Then both messages are on their way, and the one that can be noted is
    assert were_sent == [True, True]
    assert [Batch.objects.get(pk=batch.pk).sent_at is None for batch in (busy, free)] == [True, False]
