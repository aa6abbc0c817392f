"""`prune_runs`: it deletes runs that ended long ago, and nothing that anybody waits for."""

from __future__ import annotations

import json
from io import StringIO
from typing import Any

import pytest
from django.core.management import CommandError, call_command
from morango.constants import transfer_statuses
from morango.models import TransferSession
from typing_extensions import override

from morango_celery import recover_runs
from morango_celery.management.results import PrunedRunsJson
from morango_celery.management.wakeup import Wakeup
from morango_celery.models import Batch, Comparison, Run
from morango_celery.runs import pruning
from morango_celery.runs.pruning import DAY_SECONDS, Pruned, prune_as_configured, prune_runs
from tests.support.run_helpers import ago, new_run, waiting_session
from tests.support.waiting import another_connection

pytestmark = pytest.mark.django_db

OLD, YOUNG = 91 * DAY_SECONDS, 89 * DAY_SECONDS
ENDED = {"state": Run.State.COMPLETED, "session_notified": True, "finalized": True}


def ended_run(seconds_ago: float = OLD, *, batches: int = 0, **columns: Any) -> Run:
    run = Run.objects.create(**{"profile": "school", "finished_at": ago(seconds_ago), **ENDED, **columns})
    for number in range(1, batches + 1):
        Batch.objects.create(run=run, stage=1, number=number, size=1, ids_sha256="", state="done")
    return run


def ended_comparison(seconds_ago: float, number: int) -> Comparison:
    columns = {"profile": "school", "state": "completed", "differences": 0, "finished_at": ago(seconds_ago)}
    return Comparison.objects.create(transfer_session_id=f"{number:032x}", **columns)


def pruned(*arguments: str) -> str:
    out = StringIO()
    call_command("prune_runs", "--older-than=90d", *arguments, stdout=out)
    return out.getvalue()


def test_only_runs_and_comparisons_that_ended_long_ago_are_deleted() -> None:
    # Given old and young ones, with batches
    ended_run(batches=3)
    ended_run(state=Run.State.FAILED)
    ended_run(state=Run.State.CANCELLED, batches=1)
    ended_comparison(OLD, 1)
    kept = [ended_run(YOUNG, batches=1), new_run(created_at=ago(OLD), last_activity_at=ago(OLD))]
    young = ended_comparison(YOUNG, 2)
    unfinished = Comparison.objects.create(
        profile="school", transfer_session_id="3" * 32, created_at=ago(OLD)
    )

    assert pruned() == "3 runs with 4 batches and 1 comparison deleted.\n"

    assert list(Run.objects.order_by("pk")) == kept
    assert [batch.run for batch in Batch.objects.all()] == kept[:1]
    assert list(Comparison.objects.order_by("pk")) == [young, unfinished]
    assert pruned() == "0 runs with 0 batches and 0 comparisons deleted.\n"


@pytest.mark.parametrize(
    "columns",
    [{"session_notified": False}, {"finalized": False}],
    ids=["its session has no outcome", "it isn't finalized"],
)
def test_run_that_is_still_waited_for_is_kept(columns: dict[str, Any]) -> None:
    ended_run(**columns)

    assert "Kept, since somebody still waits for it: 1 run as old." in pruned()
    assert Run.objects.count() == 1


@pytest.mark.parametrize(
    ("status", "is_kept"),
    [
        (transfer_statuses.PENDING, True),
        (transfer_statuses.STARTED, True),
        (transfer_statuses.COMPLETED, False),
        (transfer_statuses.ERRORED, False),
    ],
)
def test_run_is_kept_while_its_session_is_in_the_stage(status: str, is_kept: bool) -> None:
    session = waiting_session(status)
    ended_run(transfer_session_id=session.id)
    prune_runs(90 * DAY_SECONDS)
    assert Run.objects.exists() is is_kept

    TransferSession.objects.update(active=False)
    prune_runs(90 * DAY_SECONDS)
    assert not Run.objects.exists()


@pytest.mark.parametrize("relation", ["blocked_by", "coalesced_into"])
def test_run_that_an_unfinished_one_refers_to_is_kept(relation: str) -> None:
    old = ended_run()
    other = new_run(**{relation: old})
    prune_runs(90 * DAY_SECONDS)
    assert set(Run.objects.all()) == {old, other}

    Run.objects.filter(pk=other.pk).update(finished_at=ago(1), **ENDED)
    prune_runs(90 * DAY_SECONDS)
    assert list(Run.objects.values_list("pk", relation)) == [(other.pk, None)]


def test_retry_of_a_deleted_run_stays() -> None:
    retry = new_run(retry_of=ended_run())
    prune_runs(90 * DAY_SECONDS)
    retry.refresh_from_db()
    assert retry.retry_of is None


def test_transactions_and_statements_are_bounded(
    monkeypatch: pytest.MonkeyPatch, django_assert_max_num_queries: Any
) -> None:
    # Given more than one transaction deletes, and a run with more batches than a statement deletes
    monkeypatch.setattr(pruning, "ROWS_AT_ONCE", 3)
    monkeypatch.setattr(pruning, "BATCHES_AT_ONCE", 4)
    monkeypatch.setattr("morango_celery.models.deletion.ROWS_PER_STATEMENT", 2)
    for batches in (1, 1, 1, 1, 9, 1, 1):
        ended_run(batches=batches)
    seen: list[Pruned] = []

    prune_runs(90 * DAY_SECONDS, on_progress=seen.append)

    # Then each ends with its third run, or with the run that has the fourth batch
    assert [(one.runs, one.batches) for one in seen[:4]] == [(3, 3), (5, 13), (7, 15), (7, 15)]
    assert not Batch.objects.exists()


def test_pruning_that_was_stopped_goes_on_with_the_next_call(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pruning, "ROWS_AT_ONCE", 2)
    for _ in range(5):
        ended_run(batches=1)

    first = prune_runs(90 * DAY_SECONDS, should_stop=lambda pruned: pruned.runs > 0)
    left = Run.objects.count(), Batch.objects.count()
    second = prune_runs(90 * DAY_SECONDS)

    assert (first.runs, left, second.runs) == (2, (3, 3), 3)


def test_interrupted_command_tells_how_far_it_came(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pruning, "ROWS_AT_ONCE", 1)
    for _ in range(3):
        ended_run()
    out = StringIO()
    stopped = property(lambda _: Run.objects.count() < 3, lambda *_: None)
    monkeypatch.setattr(Wakeup, "stop_requested", stopped, raising=False)

    with pytest.raises(CommandError, match="Interrupted; the next call goes on") as raised:
        call_command("prune_runs", "--older-than=90d", "--json", stdout=out)

    assert raised.value.returncode == 130  # type: ignore[attr-defined]  # its stubs don't know it
    told = json.loads(out.getvalue())
    assert (told["runs"], told["interrupted"], Run.objects.count()) == (1, True, 2)


def test_json_has_the_numbers() -> None:
    ended_run(batches=2)
    ended_run(finalized=False)
    ended_comparison(OLD, 1)

    told = json.loads(pruned("--json"))

    assert told == {
        "version": 1,
        "runs": 1,
        "batches": 2,
        "comparisons": 1,
        "kept_runs": 1,
        "interrupted": False,
    }
    assert set(told) == set(PrunedRunsJson.__annotations__)


def test_old_runs_are_deleted_by_recovery_if_a_setting_says_so(settings: Any) -> None:
    ended_run()
    young = ended_run(YOUNG)
    recover_runs()
    assert Run.objects.count() == 2

    settings.MORANGO_CELERY = {"PRUNE_AFTER_DAYS": 90}
    recover_runs(run_ids=[young.pk])
    assert Run.objects.count() == 2
    recover_runs()
    assert list(Run.objects.all()) == [young]


def test_recovery_deletes_a_few_at_a_time(settings: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pruning, "ROWS_AT_ONCE", 1)
    monkeypatch.setattr(pruning, "TRANSACTIONS_PER_RECOVERY", 2)
    settings.MORANGO_CELERY = {"PRUNE_AFTER_DAYS": 90}
    for _ in range(3):
        ended_run()

    prune_as_configured()

    assert Run.objects.count() == 1


def test_recovery_asks_nothing_without_the_setting(django_assert_num_queries: Any) -> None:
    with django_assert_num_queries(0):
        prune_as_configured()


@pytest.mark.needs_postgresql
@pytest.mark.django_db(transaction=True)
def test_run_that_another_process_holds_is_skipped() -> None:
    held, free = ended_run(batches=1), ended_run(batches=1)
    with another_connection() as session, session.cursor() as cursor:
        cursor.execute("SELECT 1 FROM morango_celery_run WHERE id = %s FOR UPDATE", [held.pk])

        assert prune_runs(90 * DAY_SECONDS) == Pruned(runs=1, batches=1)

    assert list(Run.objects.all()) == [held]
    assert not Run.objects.filter(pk=free.pk).exists()


class Terminal(StringIO):
    @override
    def isatty(self) -> bool:
        return True


def test_terminal_shows_a_bar(monkeypatch: pytest.MonkeyPatch) -> None:
    ended_run(batches=2)
    terminal = Terminal()
    monkeypatch.setattr("sys.stderr", terminal)

    pruned()

    assert "100%" in terminal.getvalue()
    assert "1/1" in terminal.getvalue()
    assert "batches=2" in terminal.getvalue()


def test_nothing_but_a_terminal_gets_a_bar(capsys: pytest.CaptureFixture[str]) -> None:
    ended_run()
    pruned()
    assert capsys.readouterr().err == ""
