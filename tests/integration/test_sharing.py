"""Runs under one filter share their work: each record is handed out once, and all runs are completed."""

from __future__ import annotations

from functools import partial
from typing import Any

import pytest
from django.db import connection, transaction
from django.test import Client
from django.urls import reverse
from morango.constants import transfer_statuses
from morango.models.certificates import Filter

import morango_celery
from morango_celery.api import wait_for
from morango_celery.management.formatting import as_text
from morango_celery.management.json_output import run_json
from morango_celery.management.run_command import RunCommand
from morango_celery.messaging.run_end import finish
from morango_celery.models import Batch, Run
from morango_celery.runs import completion, control, sharing
from morango_celery.runs.execution import execute_batch
from morango_celery.runs.opening import attempt_opening
from morango_celery.runs.producer import Progress, advance, create_run, open_batches, start
from morango_celery.runs.recovery import recover
from morango_celery.runs.status import stalled, status_of
from morango_celery.signals import run_finished
from tests.support import factories
from tests.support.concurrency import together
from tests.support.processes import LoggedProcess
from tests.support.run_helpers import (
    RecordingDispatcher,
    ago,
    dirty_ids,
    sent,
    unit,
    waiting_session,
)
from tests.support.waiting import child_that_waits_for_a_lock, held, until
from tests.support.workers import StartWorker
from worker.school.models import PROFILE

SCHOOL = factories.SCHOOL_ID
UNIT = f"{SCHOOL}:unit"


def asked_for(prefixes: str | None = SCHOOL, **options: Any) -> Run:
    columns = {"serialize_first": False, "session_notified": True, **sent(), **options}
    return create_run(PROFILE, None if prefixes is None else Filter(prefixes), **columns)


def begin(run: Run) -> Progress:
    return attempt_opening(run.pk, lambda run: start(run.pk))


def complete(run: Run) -> Run:
    """Execute the open batches of a run until it has ended."""
    progress = Progress(run, opened=True)
    while not progress.ended:
        assert progress.opened
        for batch in open_batches(progress.run):
            execute_batch(batch.pk)
        progress = attempt_opening(run.pk, lambda run: advance(run.pk))
    return progress.run


def read(*runs: Run) -> list[Run]:
    for run in runs:
        run.refresh_from_db()
    return list(runs)


def states(*runs: Run) -> list[str]:
    return [run.state for run in read(*runs)]


@pytest.mark.django_db
class TestCoalescing:
    def test_run_takes_in_all_that_have_not_begun_under_its_filter(self) -> None:
        unit()
        first, second, third = asked_for(), asked_for(), asked_for()

        opened = begin(second)

        assert opened.opened
        read(first, second, third)
        assert [run.coalesced_into_id for run in (first, second, third)] == [second.pk, None, second.pk]
        assert second.coalesced_runs == 2
        assert states(first, second, third) == ["pending", "running", "pending"]

    def test_coalesced_runs_are_completed_with_the_one_that_took_them_in(self) -> None:
        units = [unit(), unit()]
        runs = [asked_for() for _ in range(3)]
        begin(runs[0])

        complete(runs[0])

        assert states(*runs) == ["completed"] * 3
        assert [run.records for run in runs] == [len(units), 0, 0]
        assert runs[1].finished_at is not None
        assert runs[1].finished_at >= runs[1].created_at
        assert dirty_ids() == set()

    def test_records_that_arrived_for_a_coalesced_run_are_deserialized(self) -> None:
        unit()
        first = asked_for()
        row = unit()
        second = asked_for()

        begin(first)
        complete(first)

        assert states(second) == ["completed"]
        assert row.id not in dirty_ids()

    @pytest.mark.parametrize(
        ("wide", "narrow"),
        [
            (SCHOOL, UNIT),
            (SCHOOL, f"{UNIT}\n{SCHOOL}:lesson"),
            (f"{UNIT}\n{SCHOOL}:lesson", UNIT),
            (None, SCHOOL),
            ("", SCHOOL),
        ],
    )
    def test_narrower_filter_is_taken_in_by_a_wider_one_alone(self, wide: str | None, narrow: str) -> None:
        first, second = asked_for(narrow), asked_for(wide)
        begin(first)
        assert states(second) == ["pending"]
        assert second.coalesced_into_id is None
        first.delete()

        again = asked_for(narrow)
        begin(second)

        assert read(again)[0].coalesced_into_id == second.pk

    @pytest.mark.parametrize(
        "other",
        [
            {"prefixes": "0a" * 16},
            {"prefixes": f"{UNIT}\n{'0a' * 16}"},
            {"prefixes": None},
            {"skip_erroring": True},
            {"retry_errors": True},
            {"in_process": True},
            {"serialize_first": True},
        ],
        ids=str,
    )
    def test_run_under_another_filter_or_with_other_options_stays_alone(self, other: dict[str, Any]) -> None:
        alone, first = asked_for(**other), asked_for()

        begin(first)

        assert states(alone, first) == ["pending", "completed"]
        assert alone.coalesced_into_id is None

    def test_prefix_of_another_schools_id_is_no_part_of_it(self) -> None:
        longer, first = asked_for(f"{SCHOOL}0"), asked_for(f"{SCHOOL}:")

        begin(first)

        assert read(longer)[0].coalesced_into_id is None

    def test_run_that_had_taken_in_others_brings_them_along(self) -> None:
        unit()
        inner, middle, outer = asked_for(UNIT), asked_for(), asked_for(None)
        begin(middle)
        Run.objects.filter(pk=middle.pk).update(state=Run.State.PENDING, attempts=0, open_batches=0)
        Batch.objects.all().delete()  # as if its worker had been told to stop before it opened a stage

        begin(outer)
        complete(outer)

        assert states(inner, middle, outer) == ["completed"] * 3
        assert inner.coalesced_into_id == outer.pk

    def test_message_of_a_coalesced_run_does_nothing(self) -> None:
        unit()
        first, second = asked_for(), asked_for()
        begin(first)

        progress = begin(second)

        assert not progress.opened
        assert not progress.ended
        assert states(first, second) == ["running", "pending"]
        assert second.attempts == 0

    @pytest.mark.parametrize("end", ["cancelled", "failed"])
    def test_end_without_success_takes_no_other_run_along(self, end: str) -> None:
        unit()
        first, second, third = asked_for(), asked_for(), asked_for()
        begin(first)

        ended = (
            control.cancel(first.pk) if end == "cancelled" else completion.fail(first.pk, ValueError("no"))
        )

        assert states(first, second, third) == [end, "pending", "pending"]
        assert ended is not None
        assert [run.pk for run in sharing.released(ended)] == [second.pk]
        begin(second)
        complete(second)
        assert states(second, third) == ["completed"] * 2
        assert dirty_ids() == set()

    def test_cancelled_run_that_was_coalesced_ends_alone(self) -> None:
        unit()
        first, second = asked_for(), asked_for()
        begin(first)

        control.cancel(second.pk)
        complete(first)

        assert states(first, second) == ["completed", "cancelled"]

    def test_sessions_and_receivers_of_all_are_told(self) -> None:
        unit()
        sessions = [waiting_session(transfer_statuses.STARTED) for _ in range(3)]
        runs = [asked_for(session_notified=False, transfer_session_id=session.id) for session in sessions]
        told: list[int] = []

        def receiver(run: Run, **_: Any) -> None:
            told.append(run.pk)

        run_finished.connect(receiver)
        try:
            begin(runs[0])
            finish(complete(runs[0]))
        finally:
            run_finished.disconnect(receiver)

        assert sorted(told) == [run.pk for run in runs]
        for session in sessions:
            session.refresh_from_db()
            assert session.transfer_stage_status == transfer_statuses.COMPLETED
        assert not Run.objects.filter(finalized=False).exists()


@pytest.mark.django_db
class TestBlocking:
    def test_run_waits_while_another_under_its_filter_goes_on(self) -> None:
        unit()
        first = asked_for()
        begin(first)
        second = asked_for()

        progress = begin(second)

        assert not progress.opened
        assert states(second) == ["pending"]
        assert second.blocked_by_id == first.pk
        assert second.attempts == 0
        assert Batch.objects.count() == 1

    def test_end_of_a_run_releases_those_that_wait_and_one_takes_in_the_rest(self) -> None:
        unit()
        first = asked_for()
        begin(first)
        later = [asked_for() for _ in range(3)]
        late = unit()
        for run in later:
            begin(run)

        ended = complete(first)

        (released,) = sharing.released(ended)
        assert released.pk == later[0].pk
        begin(released)
        complete(released)
        assert states(*later) == ["completed"] * 3
        assert [run.records for run in later] == [1, 0, 0]
        assert late.id not in dirty_ids()

    def test_narrower_run_does_not_wait_for_a_wider_one(self) -> None:
        unit()
        wide = asked_for()
        begin(wide)
        narrow = asked_for(UNIT)

        begin(narrow)

        assert states(wide, narrow) == ["running", "running"]

    def test_wider_run_waits_for_earlier_narrower_ones_but_for_no_later_one(self) -> None:
        unit()
        earlier, wide, later = asked_for(UNIT), asked_for(), asked_for(f"{SCHOOL}:")
        begin(earlier)
        begin(wide)
        assert read(wide)[0].blocked_by_id == earlier.pk
        begin(later)
        assert read(later)[0].blocked_by_id == earlier.pk

        complete(earlier)
        unit()
        begin(later)
        begin(wide)

        assert states(wide, later) == ["running", "running"]

    @pytest.mark.parametrize("end", ["cancelled", "failed", "deleted"])
    def test_run_begins_whatever_the_end_of_the_one_before_it(self, end: str) -> None:
        unit()
        first = asked_for()
        begin(first)
        second = asked_for()
        begin(second)

        if end == "cancelled":
            control.cancel(first.pk)
        elif end == "failed":
            completion.fail(first.pk, ValueError("no"))
        else:
            first.delete()

        assert begin(second).opened

    def test_recovery_sends_no_run_that_waits_for_another(self) -> None:
        unit()
        first, coalesced = asked_for(), asked_for()
        begin(first)
        blocked = asked_for()
        begin(blocked)
        Run.objects.update(sent_at=None, overdue_at=None)
        Batch.objects.update(**sent())

        assert recover(dispatch := RecordingDispatcher()) == 0, dispatch.sent

        control.cancel(first.pk)
        recover(dispatch := RecordingDispatcher())
        assert set(dispatch.sent) == {f"run {coalesced.pk}", f"run {blocked.pk}"}

    def test_recovery_sends_what_nobody_has_released(self) -> None:
        unit()
        first = asked_for()
        begin(first)
        blocked = asked_for()
        begin(blocked)
        # The end was written at the very moment at which the other noted that it is blocked
        Run.objects.filter(pk=first.pk).update(state=Run.State.COMPLETED, finalized=True)
        Run.objects.filter(pk=blocked.pk).update(overdue_at=None)

        recover(dispatch := RecordingDispatcher())

        assert set(dispatch.sent) == {f"run {blocked.pk}"}


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
            command.follow_run(lambda _: coalesced)

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
