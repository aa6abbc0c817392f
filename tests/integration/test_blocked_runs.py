"""Runs wait for one under their filter that goes on, and its end releases them."""

from __future__ import annotations

import pytest

from morango_celery.models import Batch, Run
from morango_celery.runs import completion, control, sharing
from morango_celery.runs.recovery import recover
from tests.integration.shared_runs import SCHOOL, UNIT, asked_for, begin, complete, read, states
from tests.support.run_helpers import (
    RecordingDispatcher,
    dirty_ids,
    sent,
    unit,
)


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
