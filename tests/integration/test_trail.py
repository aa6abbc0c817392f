"""The trail of a run in the log: each event has one line, which says what it is about."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest
from django.db import transaction
from django.test import Client

from morango_celery.messaging import run_end
from morango_celery.models import Batch, Run
from morango_celery.runs import completion, control
from morango_celery.runs.attempts import OUT_OF_MEMORY, attempt_batch
from morango_celery.runs.lost_attempts import DATABASE_LOST, WORKER_LOST
from morango_celery.runs.message import Message
from tests.integration.attempts import one_batch
from tests.integration.shared_runs import asked_for, begin, complete
from tests.support import factories
from tests.support.run_helpers import MISSING, ago, carry_out, new_run, unit
from worker.school.models import Learner

pytestmark = [pytest.mark.django_db, pytest.mark.usefixtures("serializable_in_a_transaction")]

LOGGERS = ("morango_celery", "morango.sync.operations")


class Trail:
    """Lines of the log that are written once the test's transaction is committed."""

    def __init__(self, caplog: pytest.LogCaptureFixture, commit: Any) -> None:
        self._caplog, self._commit = caplog, commit

    @contextmanager
    def committed(self) -> Iterator[None]:
        self._caplog.clear()
        with self._caplog.at_level(logging.INFO), self._commit(execute=True):
            yield

    @property
    def records(self) -> list[logging.LogRecord]:
        return [record for record in self._caplog.records if record.name.startswith(LOGGERS)]

    def lines(self, about: str) -> list[logging.LogRecord]:
        return [record for record in self.records if about in record.getMessage()]

    def line(self, about: str) -> logging.LogRecord:
        (found,) = self.lines(about)
        return found


@pytest.fixture
def trail(caplog: pytest.LogCaptureFixture, django_capture_on_commit_callbacks: Any) -> Trail:
    return Trail(caplog, django_capture_on_commit_callbacks)


def fields(record: logging.LogRecord) -> dict[str, Any]:
    return {name: vars(record)[name] for name in ("run", "batch", "attempt", "model") if name in vars(record)}


def begun_by(batch: Batch, message_id: str, attempts: int = 1) -> Batch:
    """Return the batch after a worker has begun it and was killed."""
    begun = {"attempts": attempts, "attempted_by": message_id, "attempted_at": ago(20)}
    Batch.objects.filter(pk=batch.pk).update(**begun)
    return batch


class TestRecords:
    def test_bad_records_of_a_batch_have_one_line(
        self, monkeypatch: pytest.MonkeyPatch, trail: Trail
    ) -> None:
        # Given records with errors of two kinds, one of them in a model's own code
        for _ in range(3):
            factories.store_row("lesson", unit_id=MISSING)
        factories.store_row("learner", unit=unit(), full_name="a secret")

        def save(*args: Any, **kwargs: Any) -> None:
            raise KeyError("no code")

        monkeypatch.setattr(Learner, "save", save)

        with trail.committed():
            run, stages = carry_out()

        # Then a batch's line has their numbers, and no line has a value of theirs
        assert run.failed == 4
        assert len(stages[0]) == 1
        record = trail.lines("Failed to deserialize Store records, 4 of 5: ")[0]
        text = record.getMessage()
        assert "3 lesson (IntegrityError)" in text
        assert "1 learner (KeyError)" in text
        assert record.levelno == logging.WARNING
        assert fields(record) == {"run": run.pk, "batch": "1/1", "model": "learner, lesson"}
        assert len(trail.lines("Failed to deserialize")) == run.batches.exclude(failed=0).count()
        assert not trail.lines("a secret")

    def test_batch_that_is_rolled_back_has_no_line(self, trail: Trail) -> None:
        factories.store_row("lesson", unit_id=MISSING)

        with trail.committed(), transaction.atomic():
            carry_out()
            transaction.set_rollback(True)

        assert trail.records == []


class TestAttempts:
    @pytest.mark.parametrize(
        ("message", "reason"),
        [
            (Message("another"), WORKER_LOST),
            (Message("one", is_redelivered=True), WORKER_LOST),
            (Message("one", retries=1, is_redelivered=True), WORKER_LOST),
            (Message("one", retries=1), DATABASE_LOST),
        ],
        ids=["resent", "redelivered", "redelivered retry", "retry"],
    )
    def test_lost_attempt_is_logged_once_and_noted(
        self, message: Message, reason: str, trail: Trail, operator: Client
    ) -> None:
        factories.fill_store(20)
        batch = begun_by(one_batch(), "one")

        with trail.committed():
            attempt_batch(batch.pk, batch.ids_sha256, message)

        batch.refresh_from_db()
        assert (batch.state, batch.attempts, batch.last_error) == (Batch.State.DONE, 2, reason)
        record = trail.line("The attempt came to no result")
        assert f": {reason}." in record.getMessage()
        assert record.levelno == logging.WARNING
        assert fields(record) == {"run": batch.run_id, "batch": "1/1", "attempt": 1}
        page = operator.get("/admin/morango_celery/batch/?last_error__isempty=0").content.decode()
        assert f"batch/{batch.pk}/change" in page

    def test_attempt_that_was_noted_is_not_logged_again(self, trail: Trail) -> None:
        factories.fill_store(20)
        batch = begun_by(one_batch(), "")
        Batch.objects.update(last_error=WORKER_LOST)

        with trail.committed():
            attempt_batch(batch.pk, batch.ids_sha256, Message("another"))

        assert trail.lines("The attempt came to no result") == []
        batch.refresh_from_db()
        assert batch.last_error == WORKER_LOST

    def test_first_attempt_has_no_line(self, trail: Trail) -> None:
        factories.fill_store(20)
        batch = one_batch()

        with trail.committed():
            attempt_batch(batch.pk, batch.ids_sha256, Message("one"))

        assert trail.records == []
        batch.refresh_from_db()
        assert (batch.attempts, batch.last_error) == (1, "")

    def test_lack_of_memory_is_logged_once(self, monkeypatch: pytest.MonkeyPatch, trail: Trail) -> None:
        factories.store_row("learner", unit=unit())
        batch = one_batch()

        def save(*args: Any, **kwargs: Any) -> None:
            raise MemoryError

        monkeypatch.setattr(Learner, "save", save)
        with trail.committed():
            attempt_batch(batch.pk, batch.ids_sha256, Message("one"))

        record = trail.line("The attempt came to no result")
        assert f": {OUT_OF_MEMORY}." in record.getMessage()
        assert fields(record) == {"run": batch.run_id, "batch": "1/1", "attempt": 1}

    def test_split_is_logged_once_and_has_its_reason_in_the_ledger(self, trail: Trail) -> None:
        factories.fill_store(20)
        batch = begun_by(one_batch(), "one", attempts=3)

        with trail.committed():
            attempt_batch(batch.pk, batch.ids_sha256, Message("another"))

        batch.refresh_from_db()
        assert (batch.state, batch.last_error) == (Batch.State.SPLIT, WORKER_LOST)
        record = trail.line(f"of {batch.size} records is split into 10")
        assert WORKER_LOST in record.getMessage()
        assert record.levelno == logging.WARNING
        assert fields(record) == {"run": batch.run_id, "batch": "1/1", "attempt": 3}

    def test_quarantined_record_is_logged_once(self, trail: Trail) -> None:
        row = unit()
        batch = begun_by(one_batch(), "one", attempts=3)

        with trail.committed():
            attempt_batch(batch.pk, batch.ids_sha256, Message("another"))

        record = trail.line("Failed to deserialize")
        assert row.id in record.getMessage()
        assert "It is quarantined" in record.getMessage()
        assert record.levelno == logging.ERROR
        assert fields(record) == {"run": batch.run_id, "batch": "1/1", "attempt": 3, "model": "unit"}

    def test_further_attempt_to_open_a_stage_is_logged(self, trail: Trail) -> None:
        unit()
        run = asked_for()
        Run.objects.filter(pk=run.pk).update(attempts=1, last_activity_at=ago(20))

        with trail.committed():
            assert begin(run).opened

        record = trail.line("An attempt to open the run's next stage came to no result")
        assert record.levelno == logging.WARNING
        assert fields(record) == {"run": run.pk, "attempt": 2}


def failed(run: Run) -> None:
    error = RuntimeError("It can't go on.\nDETAIL: Key (name)=(a secret) exists.")
    assert completion.fail(run.pk, error) is not None


def completed_with_errors(run: Run) -> None:
    factories.store_row("lesson", unit_id=MISSING)
    carry_out(run)


class TestEndedRuns:
    @pytest.mark.parametrize(
        ("end", "level", "text"),
        [
            (carry_out, logging.INFO, "completed: 1 records, 1 saved."),
            (completed_with_errors, logging.WARNING, "completed: 2 records, 1 saved, 1 failed."),
            (lambda run: control.cancel(run.pk), logging.INFO, "cancelled: 0 records."),
            (failed, logging.ERROR, "failed: 0 records. RuntimeError: It can't go on."),
        ],
        ids=["completed", "completed with errors", "cancelled", "failed"],
    )
    def test_end_of_a_run_is_logged_once(
        self, end: Callable[[Run], Any], level: int, text: str, trail: Trail
    ) -> None:
        unit()
        run = new_run()

        with trail.committed():
            end(run)

        record = trail.line("The run has ended")
        assert record.getMessage() == f"The run has ended, {text} [run {run.pk}]"
        assert record.levelno == level
        assert fields(record) == {"run": run.pk}
        assert not trail.lines("a secret")

    @pytest.mark.usefixtures("redis_url")
    def test_run_that_ended_with_another_is_logged_once(self, trail: Trail) -> None:
        unit()
        first, second = asked_for(session_notified=True), asked_for(session_notified=True)
        begin(second)

        with trail.committed():
            ended = complete(second)
        with trail.committed():
            run_end.handle_run_end(ended)

        record = trail.line("The run has ended")
        assert f"completed: its records were deserialized by run {second.pk}." in record.getMessage()
        assert fields(record) == {"run": first.pk}
