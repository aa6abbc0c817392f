"""An operator's actions on runs in the admin."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import ExitStack
from typing import Any

import pytest
import requests
from django.db import connection
from django.test import Client
from morango.constants import transfer_statuses
from morango.models import TransferSession
from redis import Redis

from morango_celery.models import Batch, Run
from morango_celery.runs.producer import start
from tests.integration.admin_pages import RUNS, act, new_run, page_of, shown, text_of
from tests.support.factories import SCHOOL_ID
from tests.support.operators import LOOK, OPERATE, PASSWORD, logged_in, make_account
from tests.support.run_helpers import sent, unit, waiting_session
from tests.support.waiting import held_runs
from tests.support.workers import StartServer
from worker.school.models import Unit

pytestmark = [pytest.mark.django_db, pytest.mark.usefixtures("serializable_in_a_transaction")]


class TestCancel:
    def test_cancelling_asks_for_confirmation_first(self, operator: Client) -> None:
        # Given a run that a transfer session waits for
        session = waiting_session(transfer_statuses.STARTED)
        run = new_run(transfer_session_id=session.id, session_notified=False)

        # When somebody wants to cancel it, nothing happens but a question
        text = act(operator, "cancel", run)
        assert "Cancel runs?" in text
        assert f"run {run.pk} of school (pending)" in text
        assert Run.objects.get().state == Run.State.PENDING

        # When they confirm, it is cancelled, and the history says by whom
        text = act(operator, "cancel", run, confirmed="yes")
        assert f"Run {run.pk} is cancelled; 0 of 0 records" in text
        assert Run.objects.get().state == Run.State.CANCELLED
        history = shown(operator, f"{RUNS}{run.pk}/history/")
        assert "operator Cancelled." in history

    @pytest.mark.django_db(transaction=True)
    def test_cancelling_notifies_the_transfer_session(self, operator: Client) -> None:
        session = waiting_session(transfer_statuses.STARTED)
        run = new_run(transfer_session_id=session.id, session_notified=False)
        act(operator, "cancel", run, confirmed="yes")
        assert TransferSession.objects.get().transfer_stage_status == transfer_statuses.ERRORED

    def test_selection_with_ended_runs_cancels_the_others(self, operator: Client) -> None:
        ended, open_ = new_run(state=Run.State.COMPLETED), new_run()
        text = act(operator, "cancel", ended, open_, confirmed="yes")
        assert f"Run {ended.pk} is completed already; there is nothing to cancel." in text
        assert f"Run {open_.pk} is cancelled; " in text


class TestRetry:
    @pytest.fixture(autouse=True)
    def _here(self, settings: Any) -> None:
        settings.MORANGO_CELERY = {"IN_PROCESS": True}

    def test_ended_run_is_retried(self, operator: Client) -> None:
        run = new_run(filter=SCHOOL_ID, state=Run.State.FAILED)
        unit()
        text = act(operator, "retry_run", run)
        again = Run.objects.get(retry_of=run)
        assert f"Run {again.pk} retries run {run.pk}. It is completed: 1 saved, 0 failed." in text
        assert (again.filter, Unit.objects.count()) == (SCHOOL_ID, 1)
        assert f"Run {run.pk}" in shown(operator, page_of(again))
        assert f"Retries run {run.pk}." in shown(operator, f"{RUNS}{again.pk}/history/")

    def test_unfinished_run_is_not_retried(self, operator: Client) -> None:
        run = new_run(in_process=False)
        text = act(operator, "retry_run", run)
        assert f"Run {run.pk} is pending. Wait until it has ended, or cancel it first." in text
        assert Run.objects.count() == 1

    def test_errors_are_tried_again_once_for_each_filter(self, operator: Client) -> None:
        in_error = {"deserialization_error": "x", "deserialization_exception": "y.Z"}
        here, elsewhere = unit(columns=in_error), unit(columns=in_error, school_id="ab" * 16)
        sound = unit()
        runs = [new_run(filter=SCHOOL_ID, state=Run.State.COMPLETED, in_process=True) for _ in range(2)]
        text = act(operator, "retry_failed_records", *runs)
        assert Run.objects.count() == 3
        assert "retries failed records under the filter of run" in text
        assert set(Unit.objects.values_list("id", flat=True)) == {here.id}
        assert elsewhere.id != sound.id

        act(operator, "retry_failed_records", new_run(state=Run.State.COMPLETED))
        assert set(Unit.objects.values_list("id", flat=True)) == {here.id, elsewhere.id}

    def test_refusal_of_the_api_is_shown_as_a_message(self, operator: Client) -> None:
        text = act(operator, "retry_failed_records", new_run(profile="skool", state=Run.State.COMPLETED))
        assert "Did you mean 'school'?" in text


class TestSelection:
    def test_more_than_100_selected_runs_are_refused(self, operator: Client) -> None:
        for _ in range(101):
            new_run()
        form = {"select_across": "1", "index": "0", "confirmed": "yes"}
        assert "select 100 runs at most" in act(operator, "cancel", Run.objects.latest("pk"), **form)
        assert not Run.objects.exclude(state=Run.State.PENDING).exists()

    def test_runs_outside_the_lists_filter_are_not_changed(self, operator: Client) -> None:
        run = new_run(state=Run.State.COMPLETED)
        form = {"action": "cancel", "_selected_action": [run.pk]}
        answer = operator.post(f"{RUNS}?state__exact=running", form, follow=True)
        assert "the selected runs don't fit the list's filter any more" in text_of(answer.content.decode())

    @pytest.mark.parametrize("action", ["cancel", "resend_open_batches", "retry_run", "retry_failed_records"])
    def test_user_who_may_only_view_cannot_act(self, action: str) -> None:
        runs = [new_run(), new_run(state=Run.State.FAILED)]
        act(logged_in("guest", LOOK), action, *runs, confirmed="yes")
        assert list(Run.objects.order_by("pk").values_list("state", flat=True)) == ["pending", "failed"]


@pytest.mark.needs_postgresql
class TestResend:
    @pytest.mark.django_db(transaction=True)
    def test_open_batches_are_resent(
        self, operator: Client, redis_url: str, batch_size: Callable[[int], None]
    ) -> None:
        # Given a pending run and two open batches of another, which were sent a moment ago
        batch_size(1)
        unit()
        unit()
        running = start(new_run(**sent(1)).pk).run
        Batch.objects.update(**sent(1))
        pending, other = new_run(**sent(1)), new_run(**sent(1))

        # When these two are sent again, then messages say so, and there are no others
        assert "3 messages sent." in act(operator, "resend_open_batches", running, pending)
        with Redis.from_url(redis_url) as client:
            assert sum(client.llen(queue) for queue in client.keys("celery*")) == 3
        assert Run.objects.get(pk=other.pk).sent_at == other.sent_at
        assert "Resent open batches." in shown(operator, f"{RUNS}{pending.pk}/history/")

    @pytest.mark.django_db(transaction=True)
    def test_new_run_is_sent_at_once(self, operator: Client, redis_url: str) -> None:
        run = new_run(state=Run.State.FAILED)
        assert f"retries run {run.pk}. Workers take it from here." in act(operator, "retry_run", run)
        with Redis.from_url(redis_url) as client:
            assert len(client.keys("celery*")) == 1

    @pytest.mark.django_db(transaction=True)
    def test_run_taken_before_its_sending_is_noted_is_no_error(
        self, operator: Client, redis_url: str
    ) -> None:
        run = new_run(state=Run.State.FAILED)
        with ExitStack() as stack:

            def taken_at_once(execute: Any, sql: str, *arguments: Any) -> Any:
                if "SKIP LOCKED" in sql:
                    stack.enter_context(held_runs())
                return execute(sql, *arguments)

            with connection.execute_wrapper(taken_at_once):
                text = act(operator, "retry_run", run)
        again = Run.objects.get(retry_of=run)
        assert f"Run {again.pk} retries run {run.pk}. Workers take it from here." in text
        assert again.sent_at is None

    def test_runs_that_ended_or_have_no_workers_are_not_resent(self, operator: Client) -> None:
        ended, here = new_run(state=Run.State.FAILED), new_run(in_process=True)
        assert "none of these runs is one that workers still carry out" in act(
            operator, "resend_open_batches", ended, here
        )

    @pytest.mark.django_db(transaction=True)
    def test_unreachable_broker_is_shown_as_a_message(self, live_http_server: StartServer) -> None:
        # Given a server that can't reach its broker, and an operator who has logged in
        make_account("operator", OPERATE)
        url = live_http_server(REDIS_URL="redis://127.0.0.1:1/0")
        pending, failed = new_run(**sent(1)), new_run(state=Run.State.FAILED)
        unit()
        running = start(new_run(**sent(1)).pk).run
        Batch.objects.update(**sent(1))
        with requests.Session() as session:
            session.get(f"{url}/admin/login/")

            def post(path: str, **form: Any) -> str:
                form["csrfmiddlewaretoken"] = session.cookies["csrftoken"]
                return text_of(session.post(f"{url}{path}", form, timeout=60).text)

            post("/admin/login/?next=/admin/", username="operator", password=PASSWORD)

            # When they send something again, or begin something, then they are told that it waits
            for run in (pending, running):
                text = post(RUNS, action="resend_open_batches", _selected_action=[run.pk])
                assert "Nothing was sent: the broker can't be reached. Nothing is lost" in text
                assert "messages sent" not in text
            text = post(RUNS, action="retry_run", _selected_action=[failed.pk])
            again = Run.objects.get(retry_of=failed)
            assert f"Run {again.pk} retries run {failed.pk}. It waits in the ledger" in text
        waiting = Run.objects.filter(state=Run.State.PENDING).values_list("sent_at", flat=True)
        assert [*waiting, *Batch.objects.values_list("sent_at", flat=True)] == [None] * 3
