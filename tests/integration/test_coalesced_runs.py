"""Runs under one filter are coalesced: one of them hands out each record, and all are completed."""

from __future__ import annotations

from typing import Any

import pytest
from morango.constants import transfer_statuses

from morango_celery.messaging.run_end import handle_run_end
from morango_celery.models import Batch, Run
from morango_celery.runs import completion, control, sharing
from morango_celery.signals import run_finished
from tests.integration.shared_runs import SCHOOL, UNIT, asked_for, begin, complete, read, states
from tests.support.run_helpers import (
    dirty_ids,
    unit,
    waiting_session,
)


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
            handle_run_end(complete(runs[0]))
        finally:
            run_finished.disconnect(receiver)

        assert sorted(told) == [run.pk for run in runs]
        for session in sessions:
            session.refresh_from_db()
            assert session.transfer_stage_status == transfer_statuses.COMPLETED
        assert not Run.objects.filter(finalized=False).exists()
