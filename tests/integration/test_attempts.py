"""Attempts: their counting, splitting and limit. Without worker processes."""

from __future__ import annotations

import threading
from collections.abc import Callable
from contextlib import closing
from functools import partial
from typing import Any

import pytest
from django.db import DEFAULT_DB_ALIAS, OperationalError, connection, connections, transaction
from django.db.models.signals import pre_delete
from morango.models import DeletedModels, Store

from morango_celery.errors import FatalError, InvalidMessageError, SoftTimeLimitReached
from morango_celery.models import Batch, Run
from morango_celery.runs import attempts, completion
from morango_celery.runs.attempts import attempt_batch
from morango_celery.runs.execution import Execution, execute_batch
from morango_celery.runs.limits import Limits, within
from morango_celery.runs.message import Message
from morango_celery.runs.outages import UNCOUNTED_IN_A_ROW
from morango_celery.runs.producer import advance, open_batches, start
from tests.support import factories
from tests.support.concurrency import together
from tests.support.run_helpers import ago, carry_out, dirty_ids, errors, new_run, unit
from tests.support.waiting import held_rows, until
from worker.school.models import Attempt, Learner, Lesson, Unit

pytestmark = [pytest.mark.django_db, pytest.mark.usefixtures("serializable_in_a_transaction")]

POISON = "morango_celery.errors.PoisonRecordError"


def attempt(batch: Batch | int) -> Execution:
    """Execute a batch as a worker that gets a message for it."""
    found = Batch.objects.get(pk=batch if isinstance(batch, int) else batch.pk)
    return attempt_batch(found.pk, found.ids_sha256)


def still_open(run: Run) -> list[Batch]:
    """Return the open work of a run, parts that have to wait for others included."""
    return list(run.batches.filter(state=Batch.State.OPEN).order_by("pk"))


def work_off(run: Run, *, last_first: bool = False) -> Run:
    """Be the worker for all messages until the run has ended.

    :param last_first: whether the messages of a stage come in the opposite order
    """
    while True:
        messages = [batch.pk for batch in still_open(run)]
        while messages:
            execution = attempt(messages.pop(-1 if last_first else 0))
            messages.extend(execution.batches_to_send)
            waiting = {batch.pk for batch in still_open(run)}
            assert set(execution.batches_to_send) <= waiting
            assert execution.stage_is_done is not bool(waiting)
        progress = advance(run.pk)
        if progress.ended:
            completion.finish(progress.run)
            return progress.run


def used_up(batch: Batch) -> Batch:
    """Return the batch after workers have died of it."""
    Batch.objects.filter(pk=batch.pk).update(attempts=3)
    return batch


def one_batch(**options: Any) -> Batch:
    (batch,) = open_batches(start(new_run(**options).pk).run)
    return batch


def limit_sessions(monkeypatch: pytest.MonkeyPatch, limit: str, value: str) -> None:
    """Have the server limit sessions that this process opens from now on."""
    options = {**connection.settings_dict["OPTIONS"], "options": f"-c {limit}={value}"}
    monkeypatch.setitem(connection.settings_dict, "OPTIONS", options)
    connection.close()


def session_of(database: Any) -> int:
    """Return the process id of an open connection's session."""
    found: int = database.connection.info.backend_pid
    return found


def is_waited_for(session: int) -> bool:
    """Return True if another session waits for a lock of this one."""
    with closing(connections.create_connection(DEFAULT_DB_ALIAS)) as other, other.cursor() as cursor:
        cursor.execute(
            "SELECT count(*) FROM pg_stat_activity WHERE %s = ANY(pg_blocking_pids(pid))", [session]
        )
        return bool(cursor.fetchone()[0])


def wait_until_ended(session: int) -> None:
    """Wait in the middle of a transaction until the server has ended its session."""
    with closing(connections.create_connection(DEFAULT_DB_ALIAS)) as other:
        other.settings_dict = {**other.settings_dict, "OPTIONS": {}}

        def is_ended() -> bool:
            with other.cursor() as cursor:
                cursor.execute("SELECT count(*) FROM pg_stat_activity WHERE pid = %s", [session])
                return not cursor.fetchone()[0]

        until(is_ended, "ended")


def failing(error: type[BaseException]) -> Callable[..., None]:
    def code(*args: Any, **kwargs: Any) -> None:
        raise error

    return code


class TestCounting:
    def test_attempt_that_succeeds_is_the_only_one(self) -> None:
        factories.fill_store(20)
        batch = one_batch()

        execution = attempt(batch)

        assert execution.stage_is_done
        batch.refresh_from_db()
        assert (batch.state, batch.attempts, batch.saved) == (Batch.State.DONE, 1, 20)

    def test_message_that_is_refused_is_no_attempt(self) -> None:
        factories.fill_store(20)
        batch = one_batch()
        for times_before in (0, 3):
            Batch.objects.update(attempts=times_before)

            with pytest.raises(InvalidMessageError):
                attempt_batch(batch.pk, batch.ids_sha256[1:])

            batch.refresh_from_db()
            assert (batch.state, batch.attempts) == (Batch.State.OPEN, times_before)

    @pytest.mark.parametrize("state", [Run.State.CANCELLED, Run.State.FAILED])
    def test_batch_of_a_run_that_has_ended_is_not_split(self, state: Run.State) -> None:
        factories.fill_store(20)
        batch = used_up(one_batch())
        batch.run.move_to(state)

        assert attempt(batch) == Execution(batch.run_id, None, stage_is_done=False)
        assert Batch.objects.count() == 1

    @pytest.mark.parametrize("state", [Batch.State.DONE, Batch.State.SPLIT])
    def test_batch_is_closed_once(self, state: Batch.State) -> None:
        factories.fill_store(20)
        batch = one_batch()
        batch.close(state)
        batch.refresh_from_db()

        for other in (Batch.State.DONE, Batch.State.SPLIT):
            with pytest.raises(FatalError, match=f"is {state.value}; it can't become {other.value}"):
                batch.close(other)


def in_parsing(monkeypatch: pytest.MonkeyPatch, code: Callable[..., None]) -> None:
    monkeypatch.setattr(Learner, "deserialize", code)


def in_validation(monkeypatch: pytest.MonkeyPatch, code: Callable[..., None]) -> None:
    monkeypatch.setattr(Learner, "clean_fields", code)


def in_saving(monkeypatch: pytest.MonkeyPatch, code: Callable[..., None]) -> None:
    monkeypatch.setattr(Learner, "save", code)


def in_saving_alone(monkeypatch: pytest.MonkeyPatch, code: Callable[..., None]) -> None:
    calls: list[object] = []

    def save(*args: Any, **kwargs: Any) -> None:
        calls.append(None)
        if len(calls) > 1:
            code()
        raise ValueError("refused, so it is written alone")

    monkeypatch.setattr(Learner, "save", save)


def in_the_validation_of_a_tree(monkeypatch: pytest.MonkeyPatch, code: Callable[..., None]) -> None:
    monkeypatch.setattr(Unit, "cached_clean_fields", code)


@pytest.mark.parametrize("error", [MemoryError, SoftTimeLimitReached])
class TestTimeAndMemory:
    @pytest.mark.parametrize(
        "place", [in_parsing, in_validation, in_saving, in_saving_alone, in_the_validation_of_a_tree]
    )
    def test_lack_of_time_or_memory_blames_no_record(
        self, monkeypatch: pytest.MonkeyPatch, error: type[BaseException], place: Callable[..., None]
    ) -> None:
        # Given a batch in whose midst time or memory runs out
        factories.store_row("learner", unit=unit(), username="one")
        waiting = dirty_ids()
        batch = one_batch()
        with monkeypatch.context() as patch:
            place(patch, failing(error))
            execution = attempt(batch)

        # Then nothing of it is done, and it is to be sent again
        assert execution == Execution(None, None, stage_is_done=False, batches_to_send=(batch.pk,))
        assert not Unit.objects.exists()
        assert (dirty_ids(), errors()) == (waiting, {})

        # ... in parts, and when there is enough again nothing is left of it
        run = work_off(batch.run)
        assert (run.saved, run.failed, run.pass_number) == (2, 0, 1)
        batch.refresh_from_db()
        assert (batch.state, batch.attempts) == (Batch.State.SPLIT, 1)

    def test_deletion_out_of_time_or_memory_is_undone_and_sent_again(
        self, error: type[BaseException]
    ) -> None:
        factories.store_row("lesson", unit=unit())
        work_off(one_batch().run)
        Store.objects.filter(model_name="lesson").update(dirty_bit=True, deleted=True)
        batch = one_batch()
        code = failing(error)
        pre_delete.connect(code, sender=Lesson)
        try:
            execution = attempt(batch)
        finally:
            pre_delete.disconnect(code, sender=Lesson)

        assert execution.batches_to_send == (batch.pk,)
        assert Lesson.objects.count() == 1
        assert work_off(batch.run).deleted == 1

    def test_record_that_stands_alone_is_told_why(
        self, monkeypatch: pytest.MonkeyPatch, error: type[BaseException]
    ) -> None:
        # Given a learner who never gets through, and others
        home = unit()
        poison = factories.store_row("learner", unit=home, username="poison")
        good = [factories.store_row("learner", unit=home) for _ in range(30)]
        harmless = Learner.save

        def save(learner: Learner, *args: Any, **kwargs: Any) -> None:
            if learner.username == "poison":
                raise error
            harmless(learner, *args, **kwargs)

        monkeypatch.setattr(Learner, "save", save)
        run = work_off(one_batch().run)

        # Then it alone is in error: 32 -> 4 -> 1
        assert errors() == {poison.id: POISON}
        assert dirty_ids() == {poison.id}
        assert (run.records, run.saved, run.failed) == (32, 31, 1)
        assert Learner.objects.filter(pk__in=[row.id for row in good]).count() == 30
        poison.refresh_from_db()
        reason = "not enough memory" if error is MemoryError else "longer than the worker's time limit"
        assert reason in (poison.deserialization_error or "")
        attempted = sorted(Batch.objects.exclude(attempts=1).values_list("size", "attempts"))
        assert attempted == [(1, 3)]
        assert Batch.objects.filter(state=Batch.State.SPLIT).count() == 2


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


class TestGivingUp:
    def test_record_that_was_done_meanwhile_is_left_alone(self) -> None:
        row = unit()
        batch = used_up(one_batch())
        Store.objects.update(dirty_bit=False)

        execution = attempt(batch)

        assert execution.stage_is_done
        assert errors() == {}
        row.refresh_from_db()
        assert not row.dirty_bit
        assert Run.objects.get().failed == 0

    def test_descendants_of_a_poison_record_name_their_parent(self) -> None:
        root = unit()
        batch = used_up(one_batch())
        child = unit(root)

        assert attempt(batch).stage_is_done
        work_off(batch.run)
        carry_out(new_run(skip_erroring=True))

        assert errors() == {root.id: POISON, child.id: "morango.errors.MorangoMissingParent"}


@pytest.mark.needs_postgresql
@pytest.mark.django_db(transaction=True)
class TestTheDatabase:
    def ended_by(self, monkeypatch: pytest.MonkeyPatch, statement: str) -> Batch:
        factories.store_row("learner", unit=unit())
        batch = one_batch()

        def save(*args: Any, **kwargs: Any) -> None:
            with connection.cursor() as cursor:
                cursor.execute(statement)

        monkeypatch.setattr(Learner, "save", save)
        with pytest.raises(OperationalError):
            attempt(batch)
        batch.refresh_from_db()
        return batch

    def test_attempt_during_which_it_went_away_does_not_count(self, monkeypatch: pytest.MonkeyPatch) -> None:
        batch = self.ended_by(monkeypatch, "SELECT pg_terminate_backend(pg_backend_pid())")

        assert (batch.attempts, batch.last_error) == (0, "")

    def test_statement_that_it_cancelled_may_be_the_records_fault(
        self, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        batch = self.ended_by(monkeypatch, "SET LOCAL statement_timeout = 20; SELECT pg_sleep(5)")

        assert batch.attempts == 1
        assert batch.last_error == "the database said: canceling statement due to statement timeout"

    @pytest.mark.parametrize(
        ("limit", "reason"),
        [
            (
                "idle_in_transaction_session_timeout",
                "the database ended the idle transaction (SQLSTATE 25P03)",
            ),
            (
                "transaction_timeout",
                "the database ended the transaction, which took too long (SQLSTATE 25P04)",
            ),
        ],
    )
    def test_record_whose_code_outlasts_the_servers_patience_is_counted_and_ends_as_poison(
        self, monkeypatch: pytest.MonkeyPatch, settings: Any, limit: str, reason: str
    ) -> None:
        # Given a server that ends sessions whose transactions wait, or take, for too long
        settings.MORANGO_CELERY = {"MAX_ATTEMPTS": 2}
        home = unit()
        slow = factories.store_row("learner", unit=home, username="slow")
        limit_sessions(monkeypatch, limit, "1s")

        # ... and a record whose code takes longer than that
        harmless = Learner.save

        def save(learner: Learner, *args: Any, **kwargs: Any) -> None:
            if learner.username == "slow":
                wait_until_ended(session_of(connection))
            harmless(learner, *args, **kwargs)

        monkeypatch.setattr(Learner, "save", save)

        # When its batch is tried again after each time that this ended it
        batch = one_batch()
        lost = 0
        while waiting := list(open_batches(batch.run)):
            try:
                attempt(waiting[0])
            except OperationalError:
                lost += 1
                assert lost <= 4

        # Then the record is given up after as many as are allowed, beside others and alone, and says why
        assert lost == 4
        slow.refresh_from_db()
        assert errors() == {slow.id: POISON}
        assert reason in (slow.deserialization_error or "")
        assert Unit.objects.filter(pk=home.id).exists()

    def test_connection_that_is_lost_each_time_counts_in_the_end(
        self, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        # Given a batch during which the connection is lost, for all that anybody knows
        unit()
        batch = one_batch()

        def save(*args: Any, **kwargs: Any) -> None:
            with connection.cursor() as cursor:
                cursor.execute("SELECT pg_terminate_backend(pg_backend_pid())")

        monkeypatch.setattr(Unit, "clean_fields", save)

        # When one message is told so again and again, then a few times are forgiven, and no more
        counted = []
        for retries in range(UNCOUNTED_IN_A_ROW + 2):
            with pytest.raises(OperationalError):
                attempt_batch(batch.pk, batch.ids_sha256, Message("one", retries))
            batch.refresh_from_db()
            counted.append(batch.attempts)
        assert counted == [0] * UNCOUNTED_IN_A_ROW + [1, 2]
        assert (
            batch.last_error
            == f"the connection to the database was lost {UNCOUNTED_IN_A_ROW + 2} times in a row"
        )

    def test_merge_at_a_runs_end_that_outlasts_the_servers_patience_is_given_up(
        self, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
    ) -> None:
        # Given a run that has ended, and a local edit whose serialization the server doesn't wait for
        factories.store_row("learner", unit=unit())
        run, _ = carry_out()
        Learner.objects.update(update_dirty_bit_to=True, username="edited")
        Run.objects.update(conflicted=1, serialize_first=True, finalized=False)
        limit_sessions(monkeypatch, "idle_in_transaction_session_timeout", "1s")

        def serialize(learner: Learner) -> dict[str, Any]:
            wait_until_ended(session_of(connection))
            return {}

        monkeypatch.setattr(Learner, "serialize", serialize)

        # When its end is followed up again and again
        for attempts_so_far in (1, 2, 3):
            with pytest.raises(OperationalError):
                completion.finish(Run.objects.get(pk=run.pk))
            connection.close()
            assert Run.objects.get(pk=run.pk).attempts == attempts_so_far

        # Then that is over after as many times as are allowed
        completion.finish(Run.objects.get(pk=run.pk))
        assert Run.objects.get(pk=run.pk).finalized
        assert "conflicted with was tried 3 times and never came to an end" in caplog.text

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

    def test_outage_is_not_taken_back_from_an_attempt_of_another_message(
        self, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        # Given a worker that finds out late that its connection is gone: another one has begun since
        unit()
        batch = one_batch()

        def clean_fields(*args: Any, **kwargs: Any) -> None:
            with connection.cursor() as cursor:
                cursor.execute("SELECT pg_terminate_backend(pg_backend_pid())")

        account = attempts._count_outage

        def late(*arguments: Any) -> None:
            connection.close()
            Batch.objects.update(attempts=2, attempted_by="another")
            account(*arguments)

        monkeypatch.setattr(Unit, "clean_fields", clean_fields)
        monkeypatch.setattr(attempts, "_count_outage", late)
        with pytest.raises(OperationalError):
            attempt_batch(batch.pk, batch.ids_sha256, Message("one"))

        batch.refresh_from_db()
        assert (batch.attempts, batch.attempted_by) == (2, "another")

    def test_row_that_a_lost_session_still_holds_is_waited_for_within_limits(
        self, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        # Given a batch whose connection is lost, and whose row is held when that is to be noted
        unit()
        batch = one_batch()
        is_held, is_over = threading.Event(), threading.Event()

        def hold_next() -> None:
            with held_rows("morango_celery_batch", "true"):
                is_held.set()
                assert is_over.wait(60)

        holder = threading.Thread(target=hold_next)

        def clean_fields(*args: Any, **kwargs: Any) -> None:
            holder.start()
            with connection.cursor() as cursor:
                until(lambda: is_waited_for(session_of(connection)), "waited for")
                cursor.execute("SELECT pg_terminate_backend(pg_backend_pid())")

        account = attempts._count_outage

        def account_then(*arguments: Any) -> None:
            assert is_held.wait(60)
            account(*arguments)
            is_over.set()

        monkeypatch.setattr(Unit, "clean_fields", clean_fields)
        monkeypatch.setattr(attempts, "_count_outage", account_then)

        # When the database is asked to wait no longer than a moment
        timer = threading.Timer(30, is_over.set)
        timer.start()
        with within(Limits(lock_seconds=0.2)), pytest.raises(OperationalError):
            attempt_batch(batch.pk, batch.ids_sha256, Message("one"))
        timer.cancel()
        holder.join()

        # Then the process goes on, and the attempt counts
        batch.refresh_from_db()
        assert batch.attempts == 1

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
