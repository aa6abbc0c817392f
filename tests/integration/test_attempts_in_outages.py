"""Attempts that end because the database goes away or loses its patience."""

from __future__ import annotations

import threading
from contextlib import closing
from typing import Any

import pytest
from django.db import DEFAULT_DB_ALIAS, InternalError, OperationalError, connection, connections

from morango_celery.db.driver import is_psycopg3
from morango_celery.models import Batch, Run
from morango_celery.runs import attempts, completion
from morango_celery.runs.attempts import attempt_batch
from morango_celery.runs.batching import open_batches
from morango_celery.runs.limits import Limits, within
from morango_celery.runs.message import Message
from morango_celery.runs.outages import UNCOUNTED_IN_A_ROW
from tests.integration.attempts import POISON, attempt, one_batch
from tests.support import factories
from tests.support.run_helpers import carry_out, errors, unit
from tests.support.waiting import held_rows, until
from worker.school.models import Learner, Unit

DROPPED = (OperationalError, InternalError)
"""Errors of a session that the server has ended: psycopg 3 tells them apart, psycopg2 sees it closed."""

pytestmark = [pytest.mark.django_db, pytest.mark.usefixtures("serializable_in_a_transaction")]


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


@pytest.mark.needs_postgresql
@pytest.mark.django_db(transaction=True)
class TestOutages:
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
            except DROPPED:
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
        if is_psycopg3():
            pytest.skip("psycopg 3 has the word of the server that ends a session, so that is an outage")

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
            with pytest.raises(DROPPED):
                completion.finalize(Run.objects.get(pk=run.pk))
            connection.close()
            assert Run.objects.get(pk=run.pk).attempts == attempts_so_far

        # Then that is over after as many times as are allowed
        completion.finalize(Run.objects.get(pk=run.pk))
        assert Run.objects.get(pk=run.pk).finalized
        assert "conflicted with was tried 3 times and never came to an end" in caplog.text

    def test_outage_uncounts_no_attempt_of_another_message(self, monkeypatch: pytest.MonkeyPatch) -> None:
        # Given a worker that finds out late that its connection is gone: another one has begun since
        unit()
        batch = one_batch()

        def clean_fields(*args: Any, **kwargs: Any) -> None:
            with connection.cursor() as cursor:
                cursor.execute("SELECT pg_terminate_backend(pg_backend_pid())")

        account = attempts._uncount_after_outage

        def late(*arguments: Any) -> None:
            connection.close()
            Batch.objects.update(attempts=2, attempted_by="another")
            account(*arguments)

        monkeypatch.setattr(Unit, "clean_fields", clean_fields)
        monkeypatch.setattr(attempts, "_uncount_after_outage", late)
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

        account = attempts._uncount_after_outage

        def account_then(*arguments: Any) -> None:
            assert is_held.wait(60)
            account(*arguments)
            is_over.set()

        monkeypatch.setattr(Unit, "clean_fields", clean_fields)
        monkeypatch.setattr(attempts, "_uncount_after_outage", account_then)

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
