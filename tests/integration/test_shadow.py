"""Mode ``compare``: Morango deserializes each sync, and workers compare a share of the syncs afterwards."""

from __future__ import annotations

import json
import uuid
from collections.abc import Callable
from io import StringIO
from typing import Any
from unittest.mock import patch

import pytest
from django.core.management import call_command
from django.db import connection
from django.test import Client
from morango.constants import transfer_stages, transfer_statuses
from morango.models import Store, TransferSession
from morango.models.certificates import Filter

from morango_celery import tasks
from morango_celery.comparison import shadow
from morango_celery.errors import ComparisonError
from morango_celery.management.judgement import Kind
from morango_celery.messaging import comparisons
from morango_celery.messaging.dispatch import CeleryDispatch
from morango_celery.models import Batch, Comparison, Run
from morango_celery.runs.inprocess import rehearse
from morango_celery.runs.workers import note_worker
from tests.integration.admin_pages import shown
from tests.support import factories
from tests.support.dump import dump
from tests.support.operators import logged_in
from tests.support.run_helpers import ago
from tests.support.sync_state import dequeued_session, proceed, received_records
from tests.support.waiting import until
from tests.support.workers import StartWorker
from worker.school.models import PROFILE, Unit

COMPARED: dict[str, Any] = {"MODE": "compare", "COMPARE_SHARE": 1}
PAGE = "/admin/morango_celery/comparison/"


@pytest.fixture
def sent(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Return the numbers of the comparisons that messages were sent for."""
    found: list[int] = []

    def send(task_name: str, arguments: list[int], description: str, **options: Any) -> bool:
        assert task_name == tasks.compare_sync.name
        found.extend(arguments)
        return True

    monkeypatch.setattr(comparisons, "send", send)
    return found


def sync(settings: Any, **further: Any) -> TransferSession:
    """Let a sync in mode ``compare`` be deserialized, as a server does it."""
    settings.MORANGO_CELERY = {**COMPARED, **further}
    transfer = dequeued_session(received_records(), push=True)
    Store.objects.update(last_transfer_session_id=transfer.pk)
    assert proceed(transfer) == transfer_statuses.COMPLETED
    return transfer


def noted(stage: str = transfer_stages.CLEANUP, status: str = "completed", **columns: Any) -> Comparison:
    """Note a comparison of a sync that is at a stage."""
    transfer = dequeued_session(1, push=True)
    TransferSession.objects.filter(pk=transfer.pk).update(transfer_stage=stage, transfer_stage_status=status)
    defaults = {"profile": PROFILE, "filter": factories.SCHOOL_ID, "transfer_session_id": transfer.pk}
    return Comparison.objects.create(**{**defaults, **columns})


@pytest.mark.django_db(transaction=True)
class TestSync:
    @pytest.mark.parametrize("in_process", [None, True])
    def test_morangos_own_operation_deserializes(self, settings: Any, in_process: bool | None) -> None:
        transfer = sync(settings, IN_PROCESS=in_process)

        # Then it is deserialized at once, without a run, and noted for a worker if there are any
        assert not Store.objects.filter(dirty_bit=True).exists()
        assert Unit.objects.exists()
        assert not Run.objects.exists()
        has_workers = connection.vendor == "postgresql" and not in_process
        compared = [(one.state, one.transfer_session_id) for one in Comparison.objects.all()]
        assert compared == ([("pending", transfer.pk)] if has_workers else [])

    @pytest.mark.needs_postgresql
    def test_sync_that_is_not_chosen_is_not_noted(self, settings: Any) -> None:
        sync(settings, COMPARE_SHARE=0)

        assert not Comparison.objects.exists()

    @pytest.mark.needs_postgresql
    def test_sync_is_compared_once_and_the_result_is_kept(self, settings: Any, sent: list[int]) -> None:
        transfer = sync(settings)
        before = dump()

        # When recovery looks twice, and the message comes twice
        assert [tasks.recover_runs(), tasks.recover_runs()] == [1, 0]
        (number,) = sent
        done = [tasks.compare_sync(number), tasks.compare_sync(number)]

        # Then it was compared, and nothing is left but the result
        stored = Store.objects.filter(last_transfer_session_id=transfer.pk).count()
        found = Comparison.objects.get()
        assert done == [f"{stored} records, 0 differences", "nothing to compare"]
        assert (found.state, found.records, found.differences) == ("completed", stored, 0), found.report
        assert dump() == before
        assert not Run.objects.exists()
        assert not Batch.objects.exists()

    @pytest.mark.needs_postgresql
    def test_difference_is_kept_and_shown_without_a_value(self, settings: Any) -> None:
        sync(settings)
        unit = Unit.objects.order_by("pk")[0]

        def rehearse_with_a_fault(*arguments: Any) -> Run:
            run = rehearse(*arguments)
            Unit.objects.filter(pk=unit.pk).update(name="a secret", update_dirty_bit_to=False)
            return run

        with patch("morango_celery.comparison.sides.rehearse", rehearse_with_a_fault):
            tasks.compare_sync(Comparison.objects.get().pk)

        found = Comparison.objects.get()
        assert (found.state, found.differences) == ("completed", 1)
        assert "a secret" not in json.dumps(found.report)
        page = shown(logged_in("looker", ("view_comparison",)), f"{PAGE}{found.pk}/change/")
        assert "different" in page
        assert f"school_unit {unit.pk}: columns name (not documented)" in page


@pytest.mark.django_db(transaction=True)
@pytest.mark.needs_postgresql
def test_worker_compares_a_sync_by_itself(settings: Any, celery_worker_process: StartWorker) -> None:
    sync(settings)

    celery_worker_process(1, MORANGO_CELERY_MODE="compare")
    ended = Comparison.objects.exclude(state__in=Comparison.UNFINISHED)
    until(ended.exists, "the comparison has ended")

    found = ended.get()
    assert (found.state, found.error, found.differences) == ("completed", "", 0), found.report


@pytest.mark.django_db
class TestChoice:
    def test_share_of_the_sessions_is_chosen_by_their_ids(self) -> None:
        ids = [uuid.UUID(int=number).hex for number in range(4_000)]

        chosen = {share: {one for one in ids if shadow.is_chosen(one, share)} for share in (0, 0.1, 0.5, 1)}

        assert (len(chosen[0]), len(chosen[1])) == (0, len(ids))
        assert 300 < len(chosen[0.1]) < 500
        assert chosen[0.1] < chosen[0.5]
        assert chosen[0.1] == {one for one in ids if shadow.is_chosen(one, 0.1)}

    def test_session_that_is_asked_twice_has_one_comparison(self, settings: Any) -> None:
        settings.MORANGO_CELERY = COMPARED
        for _ in range(2):
            shadow.note("ab" * 16, PROFILE, Filter("cd" * 16))

        assert [one.filter for one in Comparison.objects.all()] == ["cd" * 16]


@pytest.mark.django_db
class TestSending:
    """The one who moves a comparison on is recovery, at each of its looks."""

    def test_comparison_waits_until_its_sync_is_deserialized(self, sent: list[int]) -> None:
        waiting = noted(transfer_stages.DESERIALIZING, transfer_statuses.STARTED)
        assert comparisons.send_next_comparison() == 0

        TransferSession.objects.update(transfer_stage_status=transfer_statuses.COMPLETED)

        assert comparisons.send_next_comparison() == 1
        assert sent == [waiting.pk]

    def test_one_comparison_is_made_at_a_time(self, sent: list[int]) -> None:
        first, second = noted(), noted()
        for _ in range(2):
            comparisons.send_next_comparison()
        assert sent == [first.pk]

        Comparison.objects.filter(pk=first.pk).update(state="running", started_at=ago(1))
        assert comparisons.send_next_comparison(again=True) == 0

        Comparison.objects.filter(pk=first.pk).update(state="completed")
        assert comparisons.send_next_comparison() == 1
        assert sent == [first.pk, second.pk]

    def test_lost_message_is_sent_again(self, sent: list[int]) -> None:
        lost = noted(sent_at=ago(100_000))

        assert comparisons.send_next_comparison() == 1
        assert comparisons.send_next_comparison() == 0
        assert comparisons.send_next_comparison(again=True) == 1
        assert sent == [lost.pk, lost.pk]

    @pytest.mark.parametrize(
        ("make", "reason"),
        [
            (lambda: noted(state="running", started_at=ago(1000)), "worker was lost"),
            (lambda: noted("deserializing", "errored"), "not deserialized by Morango"),
            (lambda: noted("dequeuing", created_at=ago(10_000)), "within an hour"),
        ],
        ids=["killed", "errored", "abandoned"],
    )
    def test_comparison_that_can_not_be_made_ends_and_keeps_no_other_waiting(
        self, make: Callable[[], Comparison], reason: str, sent: list[int]
    ) -> None:
        hopeless, other = make(), noted()

        assert comparisons.send_next_comparison() == 1

        hopeless.refresh_from_db()
        assert (hopeless.state, sent) == ("failed", [other.pk])
        assert reason in hopeless.error
        assert tasks.compare_sync(hopeless.pk) == "nothing to compare"

    def test_recovery_of_a_ledger_without_comparisons_costs_one_statement(
        self, django_assert_num_queries: Any
    ) -> None:
        with django_assert_num_queries(1):
            assert comparisons.send_next_comparison() == 0


@pytest.mark.django_db
class TestFailure:
    def test_reason_is_kept_of_a_comparison_that_could_not_be_made(self) -> None:
        number = noted().pk
        with patch.object(shadow, "compare", side_effect=ComparisonError("It took too long.")):
            assert tasks.compare_sync(number) == "could not be compared"
        assert (Comparison.objects.get().state, Comparison.objects.get().error) == (
            "failed",
            "It took too long.",
        )

    def test_text_of_any_other_error_is_not_kept(self) -> None:
        number = noted().pk
        with patch.object(shadow, "compare", side_effect=KeyError("Ada")):
            assert tasks.compare_sync(number) == "could not be compared"
        assert (Comparison.objects.get().state, Comparison.objects.get().error) == ("failed", "KeyError")


@pytest.mark.django_db
class TestShown:
    @pytest.fixture(autouse=True)
    def _ledger(self) -> None:
        for differences in (0, 0, 3):
            noted(state="completed", differences=differences, documented=1, records=7)
        noted(state="failed", error="It took too long.")
        noted()

    def test_status_tells_the_numbers(self) -> None:
        text, line = StringIO(), StringIO()
        note_worker("celery@here")
        for arguments, stream in (((), text), (("--json",), line)):
            with pytest.raises(SystemExit) as ended:
                call_command("deserialize_status", *arguments, stdout=stream)
            assert ended.value.code == Kind.LIMIT.value

        assert "2 the same, 1 DIFFERENT (3 rows), 1 could not be compared, 1 to come." in text.getvalue()
        numbers = {"same": 2, "different": 1, "differences": 3, "failed": 1, "waiting": 1}
        assert json.loads(line.getvalue())["comparisons"] == numbers

    def test_admin_finds_those_with_differences(self) -> None:
        looker = logged_in("looker", ("view_comparison",))
        different = Comparison.objects.get(differences=3)

        assert "5 comparisons" in shown(looker, PAGE)
        assert "It took too long." in shown(looker, PAGE)
        found = shown(looker, f"{PAGE}?differences=yes")
        assert "1 comparison" in found
        assert different.transfer_session_id in found
        assert "2 comparisons" in shown(looker, f"{PAGE}?differences=no")
        assert Client().get(PAGE).status_code == 302


@pytest.mark.django_db(transaction=True)
@pytest.mark.needs_postgresql
def test_comparison_is_never_taken_for_the_run_of_its_session(
    settings: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Given a sync that was noted, and whose server was then switched to runs
    transfer = sync(settings)
    tasks.compare_sync(Comparison.objects.get().pk)
    settings.MORANGO_CELERY = {"REQUEST_WAIT_SECONDS": 0}
    monkeypatch.setattr(CeleryDispatch, "start", lambda self, run: True)
    TransferSession.objects.update(transfer_stage_status=transfer_statuses.PENDING)

    # When its stage is asked for once more, then a run of its own is begun
    assert proceed(transfer) == transfer_statuses.STARTED
    assert Run.objects.get().state == Run.State.PENDING
    assert Run.objects.get().transfer_session_id == transfer.pk
