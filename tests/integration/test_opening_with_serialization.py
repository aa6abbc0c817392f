"""Small runs that are opened in the transaction that serializes for them, and those that can't be."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from django.db import OperationalError, connection
from morango.models import InstanceIDModel, Store

from morango_celery.deserialization.quarantine import QUARANTINED
from morango_celery.models import Batch, Run
from morango_celery.runs import batching, producer
from morango_celery.runs.producer import create_run, start
from morango_celery.serialization import serialize_into_store
from tests.support.driver_errors import driver_error
from tests.support.factories import SCHOOL_ID, build_store_row
from worker.school.models import PROFILE, Unit

pytestmark = [pytest.mark.django_db(transaction=True), pytest.mark.needs_postgresql]


@pytest.fixture
def run() -> Run:
    """Return a pending run under whose filter one record waits, and nothing was edited."""
    serialize_into_store(PROFILE)  # which gives the instance its identity
    Store.objects.bulk_create([build_store_row("unit")])
    return create_run(PROFILE, None, session_notified=True)


def unit_in_error(error: str | None, exception: str | None = None) -> Store:
    row = build_store_row("unit")
    row.deserialization_error, row.deserialization_exception = error, exception
    return row


def counter() -> int:
    return int(InstanceIDModel.objects.get(current=True).counter)


@pytest.fixture
def transactions(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Functions that opened the stage."""
    called: list[str] = []
    for name in ("_open", "_open_if_small"):
        monkeypatch.setattr(producer, name, noting(getattr(producer, name), called))
    return called


def noting(function: Callable[..., Any], called: list[str]) -> Callable[..., Any]:
    def noted(*arguments: Any) -> Any:
        called.append(function.__name__)
        return function(*arguments)

    return noted


def test_small_run_is_opened_with_its_serialization(run: Run, transactions: list[str]) -> None:
    before = counter()
    opened = start(run.pk)
    assert (opened.opened, opened.run.records, opened.run.stage) == (True, 1, 1)
    assert transactions == ["_open_if_small"]
    assert counter() == before + 1


def test_run_of_which_nothing_waits_is_completed_with_its_serialization(
    run: Run, transactions: list[str]
) -> None:
    Store.objects.all().delete()
    assert start(run.pk).ended
    assert transactions == ["_open_if_small"]
    assert Run.objects.get().state == Run.State.COMPLETED


def test_run_of_several_batches_is_planned_without_the_lock(
    run: Run, transactions: list[str], batch_size: Callable[[int], None]
) -> None:
    batch_size(1)
    Store.objects.bulk_create([build_store_row("lesson", unit_id="ab" * 16)])
    assert start(run.pk).opened
    assert transactions == ["_open_if_small", "_open"]


def test_local_edits_are_serialized_before_the_stage_is_opened(run: Run, transactions: list[str]) -> None:
    Unit.objects.create(name="edited", school_id=SCHOOL_ID)
    assert start(run.pk).opened
    assert transactions == ["_open"]
    assert not Unit.syncing_objects.filter(_morango_dirty_bit=True).exists()


@pytest.mark.parametrize("serialize_first", [False, True])
def test_errors_are_forgotten_and_counted_but_for_quarantine(serialize_first: bool, run: Run) -> None:
    # Given records in error, one of them in quarantine, and one that Morango left without a text
    waiting = [unit_in_error(text) for text in ("broken", "", None)]
    left = unit_in_error("!", QUARANTINED)
    stale = unit_in_error(None, QUARANTINED)  # it is in error no more
    Store.objects.bulk_create([*waiting, left, stale])
    Run.objects.update(serialize_first=serialize_first)

    opened = start(run.pk).run

    assert (opened.records, opened.previous_failures) == (5, 2)
    assert set(Store.objects.exclude(deserialization_error=None)) == {left}


def test_records_in_error_are_left_out_when_asked(run: Run, transactions: list[str]) -> None:
    broken = unit_in_error("broken")
    Store.objects.bulk_create([broken])
    Run.objects.update(skip_erroring=True)

    opened = start(run.pk).run

    assert (opened.records, opened.previous_failures, transactions) == (1, 0, ["_open_if_small"])
    assert set(Store.objects.exclude(deserialization_error=None)) == {broken}


def test_cancelled_run_is_not_opened(run: Run) -> None:
    pending = Run.objects.get()
    Run.objects.update(state=Run.State.CANCELLED)
    assert not start(run.pk, None, pending).opened
    assert Run.objects.get().state == Run.State.CANCELLED


def test_error_undoes_serialization_and_opening_together(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    class DeathError(Exception):
        """The end of a worker."""

    def die(*arguments: Any) -> None:
        raise DeathError

    before = counter()
    with monkeypatch.context() as patch:
        patch.setattr(batching, "_count", die)
        with pytest.raises(DeathError):
            start(run.pk)

    found = Run.objects.get()
    assert (found.state, found.batches.count(), counter()) == (Run.State.PENDING, 0, before)
    assert start(run.pk).opened


def test_opening_that_was_undone_is_repeated(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    # Given a database that asks to try again at the commit, and an edit made meanwhile
    commit = connection.commit
    failed: list[bool] = []

    def fail_once() -> None:
        if failed or not Batch.objects.exists():
            commit()
            return
        failed.append(True)
        connection.rollback()
        Unit.objects.create(name="edited", school_id=SCHOOL_ID)
        commit()
        raise OperationalError from driver_error("40001")

    monkeypatch.setattr(connection, "commit", fail_once)
    monkeypatch.setattr("morango_celery.serialization.store.is_isolation_error", lambda error: True)

    # When a run is started, then what it says is what the ledger has
    opened = start(run.pk)
    assert failed
    assert opened.run.batches.get().size == opened.run.records == 1
    assert not Unit.syncing_objects.filter(_morango_dirty_bit=True).exists()
