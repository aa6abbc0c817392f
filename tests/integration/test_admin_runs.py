"""Runs in the admin: the page of a run, and an operator's actions."""

from __future__ import annotations

import html
import re
from collections.abc import Callable
from contextlib import ExitStack
from typing import Any

import pytest
import requests
from django.db import connection
from django.test import Client
from morango.constants import transfer_statuses
from morango.models import Store, TransferSession
from morango.models.certificates import Filter
from redis import Redis

from morango_celery.models import Batch, Run
from morango_celery.runs import completion
from morango_celery.runs.execution import execute_batch
from morango_celery.runs.producer import open_batches, start
from tests.support.factories import SCHOOL_ID, fill_store, store_row
from tests.support.operators import LOOK, OPERATE, PASSWORD, logged_in, make_account
from tests.support.run_helpers import ago, carry_out, sent, unit, waiting_session
from tests.support.waiting import held_runs, held_store
from tests.support.workers import StartServer
from worker.school.models import PROFILE, Unit

pytestmark = [pytest.mark.django_db, pytest.mark.usefixtures("serializable_in_a_transaction")]

RUNS = "/admin/morango_celery/run/"


@pytest.fixture
def operator() -> Client:
    return logged_in("operator", OPERATE)


def new_run(**columns: Any) -> Run:
    return Run.objects.create(
        **{"profile": PROFILE, "serialize_first": False, "session_notified": True, **columns}
    )


def page_of(run: Run) -> str:
    return f"{RUNS}{run.pk}/change/"


def shown(client: Client, page: str) -> str:
    """Return the text of a page, without markup."""
    answer = client.get(page, follow=True)
    assert answer.status_code == 200
    return text_of(answer.content.decode())


def text_of(page: str) -> str:
    main = page.partition('<div class="main')[2]
    return re.sub(r"\s+", " ", html.unescape(re.sub(r"<[^>]*>", " ", main)))


def listed(client: Client, query: str = "") -> set[int]:
    page = client.get(f"{RUNS}?{query}").content.decode()
    return {int(number) for number in re.findall(r'<th class="field-number"><a [^>]*>(\d+)</a>', page)}


def act(client: Client, action: str, *runs: Run, **more: str) -> str:
    """Post an action and return the text of the next page."""
    selected = [str(run.pk) for run in runs]
    answer = client.post(RUNS, {"action": action, "_selected_action": selected, **more}, follow=True)
    assert answer.status_code == 200
    return text_of(answer.content.decode())


class TestShown:
    def test_progress_counts_done_records_and_outcomes(
        self, operator: Client, batch_size: Callable[[int], None]
    ) -> None:
        # Given a run of which one batch is done, with a record in error
        batch_size(10)
        fill_store(40)
        store_row("lesson", unit_id="ab" * 16)
        run = start(new_run().pk).run
        first, *_ = open_batches(run)
        execute_batch(first.pk)

        # Then the list and its page say so
        bar = f'<progress max="41" value="{first.size}"></progress>'
        for page in (RUNS, page_of(run)):
            assert bar in operator.get(page).content.decode()
            text = shown(operator, page)
            assert f"{first.size} of 41" in text
            assert f"{first.size - 1} saved, 1 failed" in text

    def test_speed_and_remaining_time_are_shown(self, operator: Client) -> None:
        columns = {"state": Run.State.RUNNING, "records": 20_000_000, "saved": 10_000_000}
        run = new_run(**columns, started_at=ago(100_000))
        for page in (RUNS, page_of(run)):
            text = shown(operator, page)
            assert re.search(r"10,000,000 of 20,000,000;? 100 .*1 day, 3:4[67]:", text), text

    def test_pending_run_shows_its_waiting_records(self, operator: Client) -> None:
        fill_store(10)
        run = new_run()
        page = operator.get(page_of(run)).content.decode()
        assert '<progress max="10" value="0"></progress>' in page
        empty = new_run(filter="cd" * 16)
        assert (
            '<progress max="1" value="0"></progress> 0 of 0' in operator.get(page_of(empty)).content.decode()
        )

    def test_ended_run_has_no_bar(self, operator: Client) -> None:
        fill_store(10)
        run, _ = carry_out()
        assert "<progress" not in operator.get(RUNS).content.decode()
        text = shown(operator, page_of(run))
        assert "completed ; ended" in text
        assert "10 saved" in text

    def test_failed_run_shows_its_error_escaped(self, operator: Client) -> None:
        run = new_run()
        completion.fail(run.pk, RuntimeError("There is no <b>paper</b>\nleft."))
        assert 'class="morango-failed"' in operator.get(RUNS).content.decode()
        assert "left." in operator.get(page_of(run)).content.decode()
        for page in (RUNS, page_of(run)):
            assert "RuntimeError: There is no &lt;b&gt;paper&lt;/b&gt;" in operator.get(page).content.decode()

    def test_stalled_runs_are_marked_and_can_be_listed(self, operator: Client, settings: Any) -> None:
        settings.MORANGO_CELERY = {"STALLED_AFTER_SECONDS": 100}
        new_run()
        silent = new_run()
        Run.objects.filter(pk=silent.pk).update(last_activity_at=ago(110))
        assert listed(operator, "stalled=yes") == {silent.pk}
        assert re.search(r"stalled ; last sign of life [12] min \d+ s ago", shown(operator, page_of(silent)))

    def test_runs_are_found_by_filters_and_search(self, operator: Client) -> None:
        failed = new_run(state=Run.State.FAILED, error="There is no paper.")
        filtered = new_run(filter=SCHOOL_ID)
        with_session = new_run(profile="other", transfer_session_id="7f" * 16)
        assert listed(operator) == {failed.pk, filtered.pk, with_session.pk}
        for query, found in {
            "state__exact=failed": failed,
            "profile=other": with_session,
            "q=paper": failed,
            f"q={SCHOOL_ID[:10]}": filtered,
            f"q={'7F' * 16}": with_session,
            f"q={filtered.pk}": filtered,
        }.items():
            assert listed(operator, query) == {found.pk}, query
        for nonsense in ("q=nothing", f"q={'9' * 30}", "q=%C2%B2", f"q={'ab' * 16}"):
            assert listed(operator, nonsense) == set()

    def test_order_of_the_list_can_be_chosen(self, operator: Client) -> None:
        for profile in ("b", "c", "a"):
            new_run(profile=profile)
        page = operator.get(f"{RUNS}?o=6").content.decode()
        assert re.findall(r'class="field-profile">(\w)<', page) == ["a", "b", "c"]

    def test_errors_under_its_filter_link_to_those_records(self, operator: Client) -> None:
        for _ in range(2):
            store_row("unit", name=None)
        store_row("unit", name=None, school_id="ab" * 16)
        carry_out()
        run, _ = carry_out(new_run(filter=SCHOOL_ID))

        page = operator.get(page_of(run)).content.decode()
        link = re.search(r'href="([^"]*)">2 x unit: django.core.exceptions.ValidationError<', page)
        assert link is not None
        assert "This field cannot be null" in page

        rows = operator.get(html.unescape(link[1])).content.decode()
        assert len(re.findall('class="field-error_in_short"', rows)) == 2
        assert f"under the filter of run {run.pk}" in rows

    def test_errors_that_go_while_a_page_is_built_are_not_linked(self, operator: Client) -> None:
        store_row("unit", name=None)
        run, _ = carry_out()

        def taken_meanwhile(execute: Any, sql: str, *arguments: Any) -> Any:
            result = execute(sql, *arguments)
            if "GROUP BY" in sql and "morango_store" in sql:
                Store.objects.update(deserialization_exception=None, deserialization_error="")
            return result

        with connection.execute_wrapper(taken_meanwhile):
            assert "Records: nothing" in shown(operator, page_of(run))
        assert not Store.objects.exclude(deserialization_exception=None).exists()

    def test_records_in_error_are_hidden_from_users_without_permission(self) -> None:
        store_row("unit", name=None)
        run, _ = carry_out()
        guest = logged_in("guest", ("view_run",))
        page = guest.get(page_of(run)).content.decode()
        assert "1 failed" in page
        assert "This field" not in page

    def test_run_links_to_its_own_batches(self, operator: Client, batch_size: Callable[[int], None]) -> None:
        batch_size(10)
        fill_store(40)
        run, stages = carry_out()
        unit()
        carry_out()
        page = operator.get(page_of(run)).content.decode()
        link = re.search(r'href="([^"]*/batch/\?[^"]*)"', page)
        assert link is not None
        batches = operator.get(link[1]).content.decode()
        assert len(re.findall(f"Run {run.pk}</a>", batches)) == sum(map(len, stages))
        assert len(re.findall('class="field-of_run"', batches)) == sum(map(len, stages))
        searched = operator.get(f"/admin/morango_celery/batch/?q={run.pk}").content.decode()
        assert len(re.findall('class="field-of_run"', searched)) == sum(map(len, stages))

    def test_batch_shows_its_last_error(self, operator: Client) -> None:
        unit()
        run = start(new_run().pk).run
        quiet = Batch.objects.get()
        last_error = "MemoryError\nThe worker has not enough memory."
        loud = Batch.of(run, 2, ["ab" * 16], last_error=last_error, suspect=True, attempts=2)
        loud.save()
        page = operator.get("/admin/morango_celery/batch/?last_error__isempty=0").content.decode()
        assert f"batch/{loud.pk}/change" in page
        assert f"batch/{quiet.pk}/change" not in page
        text = shown(operator, f"/admin/morango_celery/batch/{loud.pk}/change/")
        assert "not enough memory" in text
        assert "one more attempt that fails splits it" in text


class TestOwnPage:
    def test_page_refreshes_until_the_run_has_ended(self, operator: Client) -> None:
        run = new_run()
        assert operator.get(page_of(run))["Refresh"] == "5"
        act(operator, "cancel", run, confirmed="yes")
        assert not operator.get(page_of(run)).has_header("Refresh")

    def test_page_with_a_message_does_not_refresh(self, operator: Client) -> None:
        run = new_run()
        operator.post(RUNS, {"action": "resend_open_batches", "index": "0"})  # whose message is not shown yet
        assert not operator.get(page_of(run)).has_header("Refresh")
        assert operator.get(page_of(run)).has_header("Refresh")

    @pytest.mark.parametrize(
        ("state", "offered"),
        [
            (Run.State.PENDING, {"cancel", "resend_open_batches"}),
            (Run.State.RUNNING, {"cancel", "resend_open_batches"}),
            (Run.State.COMPLETED, {"retry_failed_records", "retry_run"}),
            (Run.State.FAILED, {"retry_failed_records", "retry_run"}),
            (Run.State.CANCELLED, {"retry_failed_records", "retry_run"}),
        ],
    )
    def test_page_offers_the_actions_of_the_runs_state(
        self, operator: Client, state: Run.State, offered: set[str]
    ) -> None:
        page = operator.get(page_of(new_run(state=state))).content.decode()
        assert set(re.findall(r'<button name="action" value="(\w+)">', page)) == offered

    def test_buttons_post_the_lists_action_for_this_run(self, operator: Client) -> None:
        run = new_run()
        page = operator.get(page_of(run)).content.decode()
        form = re.search(
            r'<form method="post" action="([^"]*/run/)">.*?value="cancel".*?</form>', page, re.DOTALL
        )
        assert form is not None
        assert f'<input type="hidden" name="_selected_action" value="{run.pk}">' in form[0]
        assert form[1] == RUNS

    def test_unknown_run_leads_back_to_the_list(self, operator: Client) -> None:
        assert operator.get(f"{RUNS}4711/change/").status_code == 302


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


@pytest.mark.needs_postgresql
@pytest.mark.django_db(transaction=True)
def test_pages_do_without_what_takes_too_long_to_count(
    operator: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Given a run, and records that can't be counted at the moment
    run = new_run(state=Run.State.RUNNING, records=5, saved=3, started_at=ago(10))
    monkeypatch.setattr("morango_celery.admin.run_list.COUNTING_SECONDS", 0.1)
    monkeypatch.setattr("morango_celery.admin.runs.COUNTING_SECONDS", 0.1)
    with held_store():
        # When they are looked at, then what is known without that is shown
        for page in (RUNS, page_of(run)):
            text = shown(operator, page)
            assert "3 of 5 so far" in text
            assert " min " not in text.partition("3 of 5")[2]
        assert "The database was given a few seconds for this, and needs more." in text


def test_filter_of_the_ledger_is_used_as_it_is(operator: Client, settings: Any) -> None:
    settings.MORANGO_CELERY = {"IN_PROCESS": True}
    prefixes = f"{SCHOOL_ID}\n{'cd' * 16}"
    act(operator, "retry_failed_records", new_run(filter=prefixes, state=Run.State.COMPLETED))
    run = Run.objects.latest("pk")
    assert (run.retry_errors, list(run.sync_filter or ())) == (True, list(Filter(prefixes)))
    assert run.profile == PROFILE
