"""Runs that share their work: shown, begun at the same time, and carried out by workers."""

from __future__ import annotations

from functools import partial
from typing import Any

import pytest
from django.db import connection, transaction
from django.test import Client
from django.urls import reverse

import morango_celery
from morango_celery.api import wait_for
from morango_celery.management.formatting import as_text
from morango_celery.management.json_output import run_json
from morango_celery.management.run_command import RunCommand
from morango_celery.models import Run
from morango_celery.runs import sharing
from morango_celery.runs.status import stalled, status_of
from tests.integration.shared_runs import SCHOOL, asked_for, begin, complete, read, states
from tests.support import factories
from tests.support.concurrency import together
from tests.support.processes import LoggedProcess
from tests.support.run_helpers import (
    ago,
    dirty_ids,
    unit,
)
from tests.support.waiting import child_that_waits_for_a_lock, held, until
from tests.support.workers import StartWorker
from worker.school.models import PROFILE


@pytest.mark.django_db
class TestShown:
    @pytest.fixture
    def runs(self) -> list[Run]:
        """One that goes on, one that it took in, and one that waits; all silent for long."""
        unit()
        first, coalesced = asked_for(), asked_for()
        begin(first)
        blocked = asked_for()
        begin(blocked)
        Run.objects.update(last_activity_at=ago(5000))
        return read(first, coalesced, blocked)

    def test_only_the_run_that_others_wait_for_is_stalled(self, runs: list[Run]) -> None:
        assert list(stalled()) == runs[:1]
        assert [status_of(run.pk).is_stalled for run in runs] == [True, False, False]

    def test_status_says_by_which_run_records_are_deserialized(self, runs: list[Run]) -> None:
        first, coalesced, blocked = runs

        assert f"  its records are deserialized by run {first.pk}" in as_text(status_of(coalesced.pk))
        assert f"  waits for the end of run {first.pk}" in as_text(status_of(blocked.pk))
        assert run_json(status_of(coalesced.pk))["coalesced_into"] == first.pk
        assert run_json(status_of(blocked.pk))["blocked_by"] == first.pk
        assert str(blocked) == f"run {blocked.pk} of {PROFILE} (pending, waits for the end of run {first.pk})"

        complete(first)

        assert f"  its records were deserialized by run {first.pk}" in as_text(status_of(coalesced.pk))
        assert not read(blocked)[0].sharing

    def test_admin_leads_to_the_other_run(self, runs: list[Run], admin_client: Client) -> None:
        first, coalesced, blocked = runs

        def page(run: Run) -> str:
            url = reverse("admin:morango_celery_run_change", args=[run.pk])
            return admin_client.get(url).content.decode()

        link = f'<a href="/admin/morango_celery/run/{first.pk}/change/">Run {first.pk}</a>'
        assert f"its records are deserialized by run {first.pk}: see {link}" in page(coalesced)
        assert f"waits for the end of run {first.pk}: see {link}" in page(blocked)
        assert "for 1 other run under its filter, too" in page(first)

    def test_command_says_by_which_run_and_what_failed(self, capsys: pytest.CaptureFixture[str]) -> None:
        bad = factories.store_row("unit", serialized="{")
        first, coalesced = asked_for(), asked_for()
        begin(first)
        complete(first)
        read(coalesced)
        command = RunCommand()

        with pytest.raises(SystemExit) as ended:
            command.follow_run({"wait": True, "timeout": None, "json": False}, lambda *_: coalesced)

        assert ended.value.code == 1
        said = capsys.readouterr().out
        assert f"Run {coalesced.pk}: its records were deserialized by run {first.pk}." in said
        assert bad.id in said


@pytest.mark.needs_postgresql
@pytest.mark.django_db(transaction=True)
class TestAtTheSameTime:
    def test_only_one_of_several_that_begin_goes_on(self) -> None:
        unit()
        for _ in range(5):
            runs = [asked_for() for _ in range(4)]
            unit()

            together([partial(begin, run) for run in runs])

            begun = [run for run in read(*runs) if run.state == Run.State.RUNNING]
            assert len(begun) == 1
            complete(begun[0])
            for run in read(*runs):
                begin(run)
            while left := [run for run in read(*runs) if run.state == Run.State.RUNNING]:
                complete(left[0])
            assert states(*runs) == ["completed"] * 4
            assert Run.objects.filter(pk__in=[run.pk for run in runs], records__gt=0).count() == 1

    def test_run_whose_attempt_is_counted_after_the_look_is_not_taken_in(self) -> None:
        first, second = asked_for(), asked_for()
        counted: list[Any] = []

        def count_before_the_lock(execute: Any, sql: str, *arguments: Any) -> Any:
            if "SKIP LOCKED" in sql and not counted:
                counted.append(sql)
                together([lambda: Run.objects.filter(pk=first.pk).update(attempts=1)])
            return execute(sql, *arguments)

        with transaction.atomic():
            second = Run.locked(second.pk)
            with connection.execute_wrapper(count_before_the_lock):
                assert not sharing.take_part(second)

        assert counted
        assert read(first)[0].coalesced_into_id is None
        assert read(second)[0].blocked_by_id == first.pk

    @pytest.mark.parametrize("number", range(3))
    def test_run_that_comes_as_another_ends_is_not_forgotten(self, number: int) -> None:
        unit()
        first = asked_for()
        begin(first)
        second = asked_for()

        together([lambda: complete(first), lambda: begin(second)])

        read(second)
        if second.state == Run.State.PENDING:
            assert not Run.objects.filter(blocked=second, state__in=Run.UNFINISHED).exists()
            begin(second)
        assert states(second) == ["completed"]


@pytest.mark.django_db(transaction=True)
class TestWorkers:
    def test_devices_of_a_school_hand_out_each_record_once(self, celery_worker_process: StartWorker) -> None:
        factories.fill_store(60)
        records = len(dirty_ids())
        celery_worker_process(MORANGO_CELERY_BATCH_SIZE_RECORDS="5")

        runs = [morango_celery.deserialize(PROFILE, SCHOOL) for _ in range(8)]
        for run in runs:
            wait_for(run, 60)

        assert states(*runs) == ["completed"] * 8
        assert sum(run.records for run in runs) == records
        assert dirty_ids() == set()

    def test_runs_survive_the_death_of_the_worker_that_carries_them_all(
        self, celery_worker_process: StartWorker
    ) -> None:
        factories.fill_store(30)

        def start_worker() -> LoggedProcess:
            return celery_worker_process(
                MORANGO_CELERY_BATCH_SIZE_RECORDS="5", MORANGO_CELERY_STALLED_AFTER_SECONDS="15"
            )

        worker = start_worker()
        with held(*list(dirty_ids())[:1]):
            first = morango_celery.deserialize(PROFILE, SCHOOL)
            until(lambda: child_that_waits_for_a_lock(worker.pid), "in the middle of a batch")
            others = [morango_celery.deserialize(PROFILE, SCHOOL) for _ in range(3)]
            until(lambda: Run.objects.filter(blocked_by=first.pk).exists(), "waiting for the first")
            worker.kill()

        start_worker()

        for run in (first, *others):
            wait_for(run, 120)
        assert dirty_ids() == set()
