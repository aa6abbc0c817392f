"""A run in process executes batches side by side, each on a connection of its own."""

from __future__ import annotations

import threading
from collections.abc import Callable
from contextlib import closing
from typing import Any

import pytest
from django.db import OperationalError, connection

from morango_celery.errors import RunFailedError
from morango_celery.models import Batch, Run
from morango_celery.runs import control, thread_pool
from morango_celery.runs.execution import Execution, execute_batch
from morango_celery.runs.inprocess import run_in_process
from morango_celery.runs.producer import start
from tests.support import factories
from tests.support.driver_errors import driver_error
from tests.support.run_helpers import dirty_ids, new_run, unit
from tests.support.waiting import held, until
from worker.school.models import Unit

pytestmark = [pytest.mark.needs_postgresql, pytest.mark.django_db(transaction=True)]


@pytest.fixture
def batches(batch_size: Callable[[int], None]) -> list[Batch]:
    """Four of one record each, of one stage."""
    batch_size(1)
    for _ in range(4):
        unit()
    run = start(new_run(in_process=True).pk).run
    return list(Batch.objects.filter(run=run).order_by("pk"))


def sessions() -> int:
    """Return the number of sessions in the test database, but for this one."""
    with connection.cursor() as cursor:
        cursor.execute("SELECT count(*) - 1 FROM pg_stat_activity WHERE datname = current_database()")
        number: int = cursor.fetchone()[0]
    return number


def ids(batches: list[Batch]) -> list[int]:
    return [batch.pk for batch in batches]


def test_thread_goes_on_while_another_waits(batches: list[Batch]) -> None:
    # Given a record that somebody else holds
    first, *others = batches
    executions = thread_pool.executed(ids(batches), 2)
    with held(*first.store_ids):
        # Then the others are done meanwhile
        done = [next(executions) for _ in others]
        assert [execution.result.saved for execution in done if execution.result] == [1, 1, 1]
        assert dirty_ids() == set(first.store_ids)

    # And it, when that is over
    assert len(list(executions)) == 1
    assert not dirty_ids()


def test_connections_are_closed_in_the_end(batches: list[Batch]) -> None:
    before = sessions()

    assert len(list(thread_pool.executed(ids(batches), 3))) == 4

    until(lambda: sessions() == before, "closed")


def test_caller_that_stops_early_leaves_nothing_in_execution(batches: list[Batch]) -> None:
    with closing(thread_pool.executed(ids(batches), 2)) as executions:
        next(executions)

    open_batches = Batch.objects.filter(state=Batch.State.OPEN)
    assert len(dirty_ids()) == open_batches.count()
    assert not any(thread.name.startswith("batches") for thread in threading.enumerate())


def test_error_that_stops_a_batch_is_raised_when_the_others_are_done(
    batches: list[Batch], monkeypatch: pytest.MonkeyPatch
) -> None:
    real = execute_batch

    def broken(batch_id: int, **options: Any) -> Execution:
        if batch_id == batches[1].pk:
            raise RuntimeError("broken")
        return real(batch_id, **options)

    monkeypatch.setattr(thread_pool, "execute_batch", broken)

    with pytest.raises(RuntimeError, match="broken"):
        list(thread_pool.executed(ids(batches), 2))

    assert not any(thread.name.startswith("batches") for thread in threading.enumerate())
    assert len(dirty_ids()) == Batch.objects.filter(state=Batch.State.OPEN).count()


@pytest.mark.parametrize("number", [1, 2])
def test_deadlock_is_tried_again(batches: list[Batch], number: int, monkeypatch: pytest.MonkeyPatch) -> None:
    real = execute_batch
    tried: list[int] = []

    def in_deadlock(batch_id: int, **options: Any) -> Execution:
        tried.append(batch_id)
        if tried.count(batch_id) < thread_pool.ATTEMPTS:
            raise OperationalError from driver_error("40P01")
        return real(batch_id, **options)

    monkeypatch.setattr(thread_pool, "execute_batch", in_deadlock)

    assert len(list(thread_pool.executed(ids(batches), number))) == 4

    assert not dirty_ids()


def test_deadlock_that_keeps_coming_is_raised(batches: list[Batch], monkeypatch: pytest.MonkeyPatch) -> None:
    def in_deadlock(batch_id: int, **options: Any) -> Execution:
        raise OperationalError from driver_error("40P01")

    monkeypatch.setattr(thread_pool, "execute_batch", in_deadlock)

    with pytest.raises(OperationalError):
        list(thread_pool.executed(ids(batches), 2))


def test_run_uses_as_many_as_the_setting_says(settings: Any, batch_size: Callable[[int], None]) -> None:
    # Given a school, and batches that say in which thread they are executed
    batch_size(20)
    rows = factories.fill_store(400)
    seen: set[str] = set()
    settings.MORANGO_CELERY = {**settings.MORANGO_CELERY, "IN_PROCESS_CONCURRENCY": 3}
    real = execute_batch

    def watched(batch_id: int, **options: Any) -> Execution:
        seen.add(threading.current_thread().name)
        return real(batch_id, **options)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(thread_pool, "execute_batch", watched)
        run = run_in_process(new_run(in_process=True))

    assert run.saved == sum(rows.values())
    assert {name.rpartition("_")[0] for name in seen} >= {"batches"}
    assert len({name for name in seen if name.startswith("batches")}) == 3


def test_run_that_is_cancelled_begins_no_further_batch(batch_size: Callable[[int], None]) -> None:
    batch_size(1)
    for _ in range(8):
        unit()

    def cancel(run: Run) -> None:
        control.cancel(run.pk)

    with pytest.raises(RunFailedError, match=r"ended from elsewhere .* It was cancelled"):
        run_in_process(new_run(in_process=True), cancel)

    assert Run.objects.get().state == Run.State.CANCELLED
    assert len(dirty_ids()) >= 8 - 2 * 2 - 1
    assert Unit.objects.count() == 8 - len(dirty_ids())
