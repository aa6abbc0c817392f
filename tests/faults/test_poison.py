"""Records that end, or wear out, the worker that deserializes them: against real worker processes."""

from __future__ import annotations

from typing import Any

import pytest
from morango.models import Store

import morango_celery
from morango_celery.models import Batch, Run
from morango_celery.runs.lost_attempts import WORKER_LOST
from tests.support import factories
from tests.support.concurrency import sync
from tests.support.processes import LoggedProcess
from tests.support.workers import StartWorker
from worker.school.models import PROFILE, Attempt, Learner

pytestmark = [pytest.mark.django_db(transaction=True), pytest.mark.needs_postgresql]

POISON = "morango_celery.errors.PoisonRecordError"


@pytest.fixture
def start_worker(celery_worker_process: StartWorker) -> Any:
    """Start a worker with learners that do as their names say; see `tests.poison_app`."""

    def start(**environment: str) -> LoggedProcess:
        return celery_worker_process(
            concurrency=1, DJANGO_SETTINGS_MODULE="tests.poison_app.settings", **environment
        )

    return start


def only_error(poison: Store) -> str:
    """Return the record's error, provided that no other record is in error or waits."""
    (row,) = Store.objects.filter(dirty_bit=True)
    assert row.id == poison.id
    assert row.deserialization_exception == POISON
    assert Store.objects.exclude(deserialization_error=None).count() == 1
    return str(row.deserialization_error)


def deaths(worker: LoggedProcess) -> int:
    return worker.log().count("Task handler raised error: WorkerLostError")


@pytest.mark.parametrize(
    ("way", "attempts", "cost"), [("exits", 3, 3 + 1 + 1 + 3), ("is killed", 1, 1 + 1 + 1 + 1)]
)
def test_record_that_kills_its_worker_is_isolated(
    start_worker: Any, way: str, attempts: int, cost: int
) -> None:
    # Given 300 records in one batch, one of which ends every process that saves it
    sent = factories.fill_store(300)
    unit = Store.objects.filter(model_name="unit").earliest("id")
    poison = factories.store_row("learner", unit=unit, username=way)
    worker = start_worker(MAX_ATTEMPTS=str(attempts))

    # When they are deserialized
    run = morango_celery.deserialize(PROFILE, wait=120)

    # Then it is in error, with a reason and a remedy, and all others are saved
    text = only_error(poison)
    assert text.startswith(f"Deserializing this record was tried {attempts} times and never came to an end")
    assert "its worker was killed, crashed, " in text
    assert "--retry-errors" in text
    assert (run.state, run.records, run.saved, run.failed) == (Run.State.COMPLETED, 301, 300, 1)
    assert {name: len(rows) for name, rows in factories.app_rows().items()} == sent
    assert worker.is_running

    # ... at the price that is documented: 301 -> 31 -> 4 -> 1
    assert sum(Batch.objects.filter(saved=0).values_list("attempts", flat=True)) == cost
    assert deaths(worker) == cost


def test_poison_record_costs_its_price_once(start_worker: Any) -> None:
    # Given 53 records in one batch, and one more that ends every process that saves it
    factories.fill_store(53)
    unit = Store.objects.filter(model_name="unit").earliest("id")
    poison = factories.store_row("learner", unit=unit, username="exits")
    worker = start_worker(MAX_ATTEMPTS="2")
    run = morango_celery.deserialize(PROFILE, wait=120)
    assert (run.records, run.saved, run.failed) == (54, 53, 1)
    cost = deaths(worker)
    assert cost == 2 + 1 + 2  # 54 -> 6 -> 1

    # ... each of which has one line in the log, and its reason in the ledger
    events = ("The attempt came to no result", "records is split into", "for good: ", "The run has ended")
    assert [worker.log().count(event) for event in events] == [cost, 2, 1, 1]
    fatal = Batch.objects.filter(attempts__gt=1) | Batch.objects.filter(state=Batch.State.SPLIT)
    assert set(fatal.values_list("last_error", flat=True)) == {WORKER_LOST}
    assert set(Batch.objects.exclude(last_error="")) == set(fatal)

    # When all others come again, in a newer version
    others = list(Store.objects.exclude(pk=poison.id))
    sync(others, 2, factories.SCHOOL_ID)
    again = morango_celery.deserialize(PROFILE, wait=120)

    # Then no process dies of it
    assert (again.records, again.saved, again.failed) == (53, 53, 0)
    assert deaths(worker) == cost
    only_error(poison)

    # ... until it changes, or somebody asks
    poison.serialized = poison.serialized.replace("Ada Example", "Ada Lovelace")
    sync([poison], 2, factories.SCHOOL_ID)
    third = morango_celery.deserialize(PROFILE, wait=120)
    assert (third.records, third.failed) == (1, 1)
    assert deaths(worker) == cost + 2
    fourth = morango_celery.deserialize(PROFILE, retry_errors=True, wait=120)
    assert (fourth.records, fourth.failed) == (1, 1)
    assert deaths(worker) == cost + 4
    only_error(poison)


def test_records_that_need_a_poison_record_fail_with_it_and_succeed_after_it(start_worker: Any) -> None:
    # Given a learner that kills workers, with an attempt, among others
    unit = factories.store_row("unit")
    poison = factories.store_row("learner", unit=unit, username="exits")
    attempt = factories.store_row("attempt", learner=poison)
    for _ in range(10):
        factories.store_row("attempt", learner=factories.store_row("learner", unit=unit))
    start_worker(MAX_ATTEMPTS="1")

    run = morango_celery.deserialize(PROFILE, wait=120)

    assert (run.saved, run.failed) == (21, 2)
    assert set(Store.objects.filter(dirty_bit=True).values_list("id", flat=True)) == {poison.id, attempt.id}
    attempt.refresh_from_db()
    assert f"learner with id {poison.id} failed to deserialize" in attempt.deserialization_error

    # When the cause is mended (this process's models are harmless) and errors are tried again
    again = morango_celery.deserialize(PROFILE, retry_errors=True, in_process=True)

    assert (again.records, again.saved, again.failed) == (2, 2, 0)
    assert Learner.objects.filter(pk=poison.id).exists()
    assert Attempt.objects.filter(pk=attempt.id).exists()


@pytest.mark.parametrize("way", ["sleeps", "sleeps and swallows"])
def test_record_that_never_returns_is_isolated_by_time_limits(start_worker: Any, way: str) -> None:
    # Given a record that takes for ever, of a model that swallows errors
    unit = factories.store_row("unit")
    poison = factories.store_row("learner", unit=unit, username=way)
    others = [factories.store_row("learner", unit=unit) for _ in range(3)]
    soft, hard = 1, 60 if way == "sleeps" else 2
    worker = start_worker(SOFT_TIME_LIMIT=str(soft), TIME_LIMIT=str(hard), MAX_ATTEMPTS="2")

    # When they are deserialized
    run = morango_celery.deserialize(PROFILE, wait=120)

    # Then nobody had to wait for recovery, and no other record is blamed
    text = only_error(poison)
    assert Learner.objects.filter(pk__in=[row.id for row in others]).count() == 3
    assert (run.state, run.saved, run.failed) == (Run.State.COMPLETED, 4, 1)
    if way == "sleeps":  # the process lives to say why
        assert "tried 2 times and never came to an end: it took longer than the worker's time limit." in text
        assert Batch.objects.get(state=Batch.State.SPLIT).attempts == 1
        assert deaths(worker) == 0
    else:
        assert "exceeded the hard time limit" in text
        assert worker.log().count("Hard time limit") == 4


def test_record_that_needs_too_much_memory_is_isolated(start_worker: Any) -> None:
    unit = factories.store_row("unit")
    poison = factories.store_row("learner", unit=unit, username="eats")
    others = [factories.store_row("learner", unit=unit) for _ in range(3)]
    worker = start_worker()

    run = morango_celery.deserialize(PROFILE, wait=120)

    assert "tried 3 times and never came to an end: there was not enough memory." in only_error(poison)
    assert Learner.objects.filter(pk__in=[row.id for row in others]).count() == 3
    assert (run.state, run.saved, run.failed) == (Run.State.COMPLETED, 4, 1)
    assert worker.is_running
    assert deaths(worker) == 0
