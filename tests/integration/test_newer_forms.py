"""Rows that a newer version has written: this one leaves them alone, and says so."""

from __future__ import annotations

import io
from typing import Any

import pytest
from django.core.management import call_command
from django.test import Client
from morango.constants import transfer_statuses

from morango_celery import api, clock, tasks
from morango_celery.comparison import shadow
from morango_celery.errors import FatalError, UsageError
from morango_celery.health.findings import Severity
from morango_celery.health.project import look_at_runs
from morango_celery.management.formatting import as_text
from morango_celery.messaging.run_end import handle_run_end
from morango_celery.messaging.task_names import START_RUN
from morango_celery.metrics.figures import figures
from morango_celery.models import Batch, Comparison, Run
from morango_celery.runs import sharing
from morango_celery.runs.attempts import attempt_batch
from morango_celery.runs.message import Message
from morango_celery.runs.opening import attempt_start
from morango_celery.runs.pruning import prune_runs
from morango_celery.runs.recovery import recover
from morango_celery.runs.status import status_of
from morango_celery.signals import run_finished
from morango_celery.version import FORM, FORM_HEADER
from tests.support.run_helpers import RecordingDispatcher, ago, dirty_ids, new_run, unit, waiting_session
from worker.school.models import PROFILE

pytestmark = pytest.mark.django_db

NEWER = FORM + 1
UNKNOWN = "halted"
"""A state of the future."""

DAY_SECONDS = 24 * 60 * 60.0

BY_FORM = {"form": NEWER}
BY_STATE = {"state": UNKNOWN}


def running(**columns: Any) -> tuple[Run, Batch]:
    """Return a run with one open batch of one record; no worker is at it."""
    record = unit()
    run = new_run(state=Run.State.RUNNING, stage=1, stage_batches=1, open_batches=1, records=1, **columns)
    batch = Batch.of(run, 1, [record.id])
    batch.save()
    return run, batch


def row(which: Run | Batch | Comparison) -> dict[str, Any]:
    """Return all columns as the database has them."""
    return dict(type(which)._base_manager.values().get(pk=which.pk))


@pytest.mark.parametrize("newer", [BY_FORM, BY_STATE], ids=["form", "state"])
def test_run_of_a_newer_version_is_neither_begun_nor_sent(newer: dict[str, Any]) -> None:
    # Given a run that a newer version has written
    record = unit()
    run = new_run(**newer)
    before = row(run)

    # When a message for it comes, and recovery looks for open work
    attempt_start(run.pk, Message("m"))
    dispatch = RecordingDispatcher()
    assert recover(dispatch, all_unfinished=True) == 0

    # Then nothing is sent, no attempt is counted, and the record still waits
    assert not dispatch.sent
    assert {name: row(run)[name] for name in ("form", "state", "attempts", "stage")} == {
        name: before[name] for name in ("form", "state", "attempts", "stage")
    }
    assert dirty_ids() == {record.id}


def test_batch_of_a_newer_form_is_not_attempted() -> None:
    run, batch = running()
    Batch.objects.update(form=NEWER)
    before = row(batch)
    attempt_batch(batch.pk, batch.ids_sha256, Message("m"))
    dispatch = RecordingDispatcher()
    assert recover(dispatch, all_unfinished=True) == 0
    after = row(batch)
    assert (after["attempts"], after["state"], after["ids_json"]) == (0, "open", before["ids_json"])
    assert Run.objects.get(pk=run.pk).open_batches == 1


def test_batch_in_an_unknown_state_neither_ends_nor_closes_its_stage() -> None:
    run, batch = running()
    Batch.objects.update(state=UNKNOWN)
    execution = attempt_batch(batch.pk, batch.ids_sha256, Message("m"))
    assert not execution.stage_is_done
    assert row(batch)["attempts"] == 0
    batch.refresh_from_db()
    assert not batch.is_open
    with pytest.raises(FatalError, match=UNKNOWN):
        batch.close(Batch.State.DONE)
    assert recover(RecordingDispatcher(), all_unfinished=True) == 0
    assert Run.objects.get(pk=run.pk).open_batches == 1


def test_attempt_at_a_batch_whose_run_is_in_an_unknown_state_is_uncounted() -> None:
    # Given an old message for an open batch, whose run a newer version has put into a state of its own
    run, batch = running()
    Run.objects.update(state=UNKNOWN)

    # When the message is carried out
    attempt_batch(batch.pk, batch.ids_sha256, Message("m"))

    # Then the batch is as it was, and its record waits
    after = row(batch)
    assert (after["attempts"], after["attempted_by"], after["state"]) == (0, "", "open")
    assert dirty_ids()
    assert row(run)["state"] == UNKNOWN


def test_batches_have_the_form_of_their_run() -> None:
    run = new_run()
    assert row(run)["form"] == FORM
    run.form = 0
    assert Batch.of(run, 1, ["a"]).form == 0


@pytest.mark.parametrize("newer", [BY_FORM, BY_STATE], ids=["form", "state"])
def test_run_doesnt_coalesce_runs_of_a_newer_version_nor_wait_for_them(newer: dict[str, Any]) -> None:
    unit()
    other = new_run(**newer)
    run = new_run()
    attempt_start(run.pk, Message("m"))
    run.refresh_from_db()
    assert (run.state, run.coalesced_runs) == (Run.State.COMPLETED, 0)
    assert row(other)["coalesced_into_id"] is None


def test_run_waits_for_one_in_an_unknown_state_which_may_go_on() -> None:
    other = new_run(state=UNKNOWN)
    blocked, coalesced = new_run(blocked_by=other), new_run(coalesced_into=other)
    assert not Run.objects.filter(sharing.ready(), pk__in=(blocked.pk, coalesced.pk)).exists()
    Run.objects.filter(pk=other.pk).update(state=Run.State.COMPLETED)
    assert Run.objects.filter(sharing.ready(), pk__in=(blocked.pk, coalesced.pk)).count() == 2


def test_session_hears_of_the_end_of_a_newer_run_which_is_finalized_by_its_own_version() -> None:
    # Given an ended run of a newer version, and a session that waits for it
    session = waiting_session(transfer_statuses.STARTED)
    ended = {"state": Run.State.COMPLETED, "finished_at": ago(DAY_SECONDS), "session_notified": False}
    run = new_run(form=NEWER, transfer_session_id=session.id, **ended)
    heard: list[Run] = []

    def receiver(run: Run, **kwargs: Any) -> None:
        heard.append(run)

    # When recovery comes by, and a message for its end
    run_finished.connect(receiver)
    try:
        recover(RecordingDispatcher())
        handle_run_end(Run.objects.get(pk=run.pk))
    finally:
        run_finished.disconnect(receiver)

    # Then no device waits, and the newer version has the rest to do
    session.refresh_from_db()
    assert session.transfer_stage_status == transfer_statuses.COMPLETED
    assert heard == []
    assert not row(run)["finalized"]


def test_pruning_keeps_rows_of_a_newer_version_and_those_that_it_refers_to() -> None:
    old = {"finished_at": ago(10 * DAY_SECONDS), "session_notified": True, "finalized": True}
    newer = [
        new_run(form=NEWER, state=Run.State.COMPLETED, **old),
        new_run(state=UNKNOWN, **old),
        new_run(state=Run.State.COMPLETED, **old),
    ]
    new_run(state=UNKNOWN, blocked_by=newer[2])
    known = new_run(state=Run.State.COMPLETED, **old)
    compared = {"profile": PROFILE, "finished_at": ago(10 * DAY_SECONDS)}
    kept = [
        Comparison.objects.create(transfer_session_id="a" * 32, state=UNKNOWN, **compared),
        Comparison.objects.create(transfer_session_id="b" * 32, state="completed", form=NEWER, **compared),
    ]
    gone = Comparison.objects.create(transfer_session_id="c" * 32, state="completed", **compared)

    pruned = prune_runs(DAY_SECONDS)

    assert (pruned.runs, pruned.comparisons) == (1, 1)
    assert not Run.objects.filter(pk=known.pk).exists()
    assert Run.objects.filter(pk__in=[run.pk for run in newer]).count() == len(newer)
    assert set(Comparison.objects.values_list("pk", flat=True)) == {each.pk for each in kept}
    assert gone.pk not in {each.pk for each in kept}


@pytest.mark.parametrize("newer", [BY_FORM, BY_STATE], ids=["form", "state"])
def test_newer_run_in_process_is_not_taken_for_abandoned(newer: dict[str, Any]) -> None:
    run = new_run(in_process=True, last_activity_at=ago(100 * DAY_SECONDS), **newer)
    before = row(run)
    recover(RecordingDispatcher())
    assert row(run) == before


def test_newer_comparison_is_neither_sent_nor_made() -> None:
    comparison = Comparison.objects.create(
        profile=PROFILE, transfer_session_id="a" * 32, created_at=ago(DAY_SECONDS), form=NEWER
    )
    before = row(comparison)
    assert shadow.next_due(again=True) is None
    assert shadow.carry_out(comparison.pk) == "nothing to compare"
    assert row(comparison) == before


@pytest.mark.parametrize("newer", [BY_FORM, BY_STATE], ids=["form", "state"])
def test_cancel_and_retry_leave_a_newer_run_to_its_version(newer: dict[str, Any]) -> None:
    run = new_run(**newer)
    before = row(run)
    with pytest.raises(UsageError, match="newer version"):
        api.cancel(run.pk)
    with pytest.raises(UsageError, match="newer version"):
        api.retry(run.pk)
    assert row(run) == before
    with pytest.raises(FatalError, match="newer version"):
        Run.objects.get(pk=run.pk).change_state(Run.State.FAILED)


@pytest.mark.parametrize("newer", [BY_FORM, BY_STATE], ids=["form", "state"])
def test_newer_run_is_cancelled_on_request_once_its_version_is_gone(
    newer: dict[str, Any], django_capture_on_commit_callbacks: Any
) -> None:
    # Given a run of a newer version, one that waits for its end, and a session
    session = waiting_session(transfer_statuses.STARTED)
    run = new_run(transfer_session_id=session.id, session_notified=False, **newer)
    blocked = new_run(blocked_by=run)
    record = unit()

    # When an operator cancels it, that version being gone
    with django_capture_on_commit_callbacks(execute=True):
        call_command("cancel_run", str(run.pk), "--of-newer-version", stdout=io.StringIO())

    # Then nobody waits for it, and its record is left to the next run
    run.refresh_from_db()
    assert (run.state, run.is_known, run.finalized) == (Run.State.CANCELLED, True, True)
    session.refresh_from_db()
    assert session.transfer_stage_status == transfer_statuses.ERRORED
    assert row(blocked)["blocked_by_id"] is None
    assert dirty_ids() == {record.id}
    attempt_start(blocked.pk, Message("m"))
    assert dirty_ids() == set()


@pytest.mark.parametrize("newer", [BY_FORM, BY_STATE], ids=["form", "state"])
def test_faces_show_a_newer_run_as_it_is(newer: dict[str, Any], operator: Client) -> None:
    # Given a run of a newer version, with a batch of it
    run, _ = running()
    Run.objects.update(**newer)
    Batch.objects.update(**newer)
    run.refresh_from_db()
    assert not run.has_ended

    # When people look at it, then they see its state, and whose it is
    shown = as_text(status_of(run.pk))
    assert f": {run.state}" in shown[0]
    assert any("left to workers of that version" in line for line in shown)
    for page in ("", f"{run.pk}/change/", f"{run.pk}/timeline/", "now/"):
        response = operator.get(f"/admin/morango_celery/run/{page}")
        assert response.status_code == 200, page
        assert run.state in response.content.decode() or page == "now/", page  # it has runs of known states
    (finding,) = [found for found in look_at_runs() if found.severity is Severity.WARNING]
    assert finding.text.endswith(f": {run.pk}")
    assert sum(figure.value for figure in figures() if UNKNOWN in figure.labels) == 0


def test_ended_runs_of_a_newer_version_wait_for_nobody() -> None:
    new_run(form=NEWER, state=Run.State.COMPLETED, finished_at=clock.now())
    assert all(found.severity is Severity.OK for found in look_at_runs())


def test_retried_message_keeps_its_form() -> None:
    """A message that an older worker retries must still be requeued by one that doesn't know it."""
    request = type(tasks.start_run.request)(
        {"id": "m", "task": START_RUN, "args": [1], "kwargs": {}, "retries": 0, FORM_HEADER: NEWER}
    )
    assert tasks.start_run.signature_from_request(request).options["headers"][FORM_HEADER] == NEWER
