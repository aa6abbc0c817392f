"""The Python door."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest
from django.db import connection, transaction
from django.utils import timezone
from morango.models import Store
from morango.models.certificates import Filter

import morango_celery
from morango_celery.errors import (
    InvalidFilterError,
    InvalidSettingError,
    RunFailedError,
    TransientError,
    UnknownProfileError,
    UsageError,
)
from morango_celery.models import Batch, Run
from morango_celery.signals import run_finished
from tests.support.factories import SCHOOL_ID, app_rows, fill_store, store_row
from tests.support.workers import StartWorker
from worker.school.models import PROFILE, Unit


class TestInProcess:
    @pytest.mark.django_db(transaction=True)
    def test_deserialize_saves_all_waiting_records(self) -> None:
        sent = fill_store(60)
        run = morango_celery.deserialize(PROFILE, in_process=True)
        assert (run.state, run.saved, run.failed) == (Run.State.COMPLETED, 60, 0)
        assert {name: len(rows) for name, rows in app_rows().items()} == sent
        assert run.finished_at is not None
        assert run.finished_at <= timezone.now()

    @pytest.mark.django_db(transaction=True)
    def test_local_edits_are_merged_first(self) -> None:
        Unit.objects.create(name="made here", school_id=SCHOOL_ID)
        morango_celery.deserialize(PROFILE, in_process=True)
        assert "made here" in Store.objects.get().serialized

    @pytest.mark.django_db
    def test_deserialize_from_store_works_inside_an_open_transaction(self) -> None:
        assert connection.in_atomic_block
        fill_store(30)
        with transaction.atomic():
            run = morango_celery.deserialize_from_store(PROFILE, skip_erroring=True, filter=Filter(""))
        assert (run.state, run.saved) == (Run.State.COMPLETED, 30)
        assert not Store.objects.filter(dirty_bit=True).exists()

    @pytest.mark.django_db
    def test_progress_is_told_after_each_batch(self, settings: Any) -> None:
        settings.MORANGO_CELERY = {"BATCH_SIZE_RECORDS": 10}
        settings.MORANGO_TEST_POSTGRESQL = True
        fill_store(40)
        done: list[int] = []
        morango_celery.deserialize(PROFILE, in_process=True, on_progress=lambda run: done.append(run.done))
        assert len(done) == Batch.objects.count()
        assert done == sorted(done)
        assert done[-1] == 40

    @pytest.mark.django_db
    def test_error_that_stops_a_run_is_recorded_and_raised(self, monkeypatch: pytest.MonkeyPatch) -> None:
        def broken(*args: Any, **kwargs: Any) -> None:
            raise RuntimeError("out of order")

        fill_store(10)
        monkeypatch.setattr("morango_celery.runs.execution.deserialize_batch", broken)
        with pytest.raises(RuntimeError):
            morango_celery.deserialize_from_store(PROFILE)
        run = Run.objects.get()
        assert (run.state, run.error) == (Run.State.FAILED, "RuntimeError: out of order")
        assert Store.objects.filter(dirty_bit=True).count() == 10


@pytest.mark.django_db
class TestBadInput:
    def test_unknown_profile_is_refused_with_a_suggestion(self) -> None:
        with pytest.raises(UnknownProfileError, match=r"'skool'.*Did you mean 'school'"):
            morango_celery.deserialize("skool")
        assert not Run.objects.exists()

    @pytest.mark.parametrize("sync_filter", ["", [], [""], ["a b"], ["${school_id}"], [7], ["x\x00"]])
    def test_invalid_filter_is_refused(self, sync_filter: Any) -> None:
        with pytest.raises(InvalidFilterError):
            morango_celery.deserialize(PROFILE, sync_filter)
        assert not Run.objects.exists()

    def test_waiting_inside_an_open_transaction_is_refused(self) -> None:
        with pytest.raises(UsageError, match="open transaction"):
            morango_celery.deserialize(PROFILE, wait=True, in_process=False)
        assert not Run.objects.exists()

    def test_unknown_setting_is_refused_with_a_suggestion(self, settings: Any) -> None:
        settings.MORANGO_CELERY = {"BATCH_RECORDS": 5}
        with pytest.raises(InvalidSettingError, match="BATCH_SIZE_RECORDS"):
            morango_celery.deserialize(PROFILE)


@pytest.mark.needs_postgresql
@pytest.mark.django_db(transaction=True)
class TestWithWorkers:
    def test_waiting_returns_the_ended_run(self, celery_worker_process: StartWorker) -> None:
        celery_worker_process()
        fill_store(2_500)
        bad = store_row("unit", name=None)
        run = morango_celery.deserialize(PROFILE, wait=60)
        assert (run.state, run.saved, run.failed) == (Run.State.COMPLETED, 2_500, 1)
        assert list(Store.objects.filter(dirty_bit=True).values_list("id", flat=True)) == [bad.id]

    def test_only_records_under_the_filter_are_deserialized(self, celery_worker_process: StartWorker) -> None:
        celery_worker_process()
        here, elsewhere = store_row("unit"), store_row("unit", school_id="ab" * 16)
        morango_celery.deserialize(PROFILE, [SCHOOL_ID], wait=60)
        assert Unit.objects.get().id == here.id
        assert Store.objects.get(dirty_bit=True).id == elsewhere.id

    def test_waiting_for_a_run_that_nobody_takes_times_out(self, redis_url: str) -> None:
        with pytest.raises(TransientError, match=r"has not ended after 0\.1 s"):
            morango_celery.deserialize(PROFILE, wait=0.1)
        assert Run.objects.get().state == Run.State.PENDING

    def test_failure_of_a_run_is_raised_to_whoever_waits(self, redis_url: str) -> None:
        run = morango_celery.deserialize(PROFILE)
        Run.objects.filter(pk=run.pk).update(state=Run.State.FAILED, error="RuntimeError: out of order")
        from morango_celery.api import wait_for

        with pytest.raises(RunFailedError, match="out of order"):
            wait_for(run)


@pytest.mark.django_db
def test_recovery_does_what_follows_the_end_of_a_run() -> None:
    # Given a run whose worker died right after the commit that ended it
    store_row("unit")
    run = morango_celery.deserialize_from_store(PROFILE)
    Run.objects.update(finalized=False)
    heard = []

    def receive(run: Run, **kwargs: Any) -> None:
        heard.append(run.pk)

    run_finished.connect(receive)
    try:
        # When it is too early to say that, then once it is not, then again
        morango_celery.recover_runs()
        assert heard == []
        Run.objects.update(finished_at=timezone.now() - timedelta(hours=1))
        morango_celery.recover_runs()
        morango_celery.recover_runs()
    finally:
        run_finished.disconnect(receive)

    # Then whoever listens was told once
    assert heard == [run.pk]


@pytest.mark.needs_postgresql
@pytest.mark.django_db(transaction=True)
def test_recovery_sends_what_waits_in_the_ledger(celery_worker_process: StartWorker) -> None:
    store_row("unit")
    run = Run.objects.create(profile=PROFILE, session_notified=True)
    celery_worker_process()  # recovers when it starts
    assert morango_celery.api.wait_for(run, 60).saved == 1
    assert morango_celery.recover_runs(all_unfinished=True) == 0


def test_end_of_a_run_is_also_known_by_its_name_in_version_0_2_0() -> None:
    assert Run(state=Run.State.CANCELLED).is_finished
    assert not Run(state=Run.State.RUNNING).is_finished
