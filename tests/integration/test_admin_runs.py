"""Runs in the admin: their list, and the page of each."""

from __future__ import annotations

import html
import re
from collections.abc import Callable
from typing import Any

import pytest
from django.db import connection
from django.test import Client
from morango.models import Store
from morango.models.certificates import Filter

from morango_celery.models import Batch, Run
from morango_celery.runs import completion
from morango_celery.runs.batching import open_batches
from morango_celery.runs.control import cancel
from morango_celery.runs.execution import execute_batch
from morango_celery.runs.producer import start
from tests.integration.admin_pages import RUNS, act, listed, new_run, page_of, shown
from tests.support.factories import SCHOOL_ID, fill_store, store_row
from tests.support.operators import logged_in
from tests.support.run_helpers import ago, carry_out, unit
from tests.support.waiting import held_store
from worker.school.models import PROFILE

pytestmark = [pytest.mark.django_db, pytest.mark.usefixtures("serializable_in_a_transaction")]


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
        for prefix in ("b", "c", "a"):
            new_run(filter=prefix)
        page = operator.get(f"{RUNS}?o=4").content.decode()
        assert re.findall(r'class="field-facility"><span title="(\w)">', page) == ["a", "b", "c"]

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

    def test_open_batch_of_a_run_that_has_ended_says_so(self, operator: Client) -> None:
        for _ in range(3):
            unit()
        failed, cancelled = (start(new_run(filter=SCHOOL_ID).pk).run for _ in range(2))
        completion.fail(failed.pk, RuntimeError("No service.\nMore."))
        cancel(cancelled.pk)
        page = html.unescape(operator.get("/admin/morango_celery/batch/").content.decode())
        assert f">run {failed.pk} failed: RuntimeError: No service<" in page
        assert f">run {cancelled.pk} was cancelled<" in page

        for run, end in ((failed, "failed: RuntimeError: No service"), (cancelled, "was cancelled")):
            batch = Batch.objects.get(run=run)
            text = shown(operator, f"/admin/morango_celery/batch/{batch.pk}/change/")
            assert f"Why it is open: run {run.pk} {end}. Nobody executes it any more" in text

    def test_open_batch_says_what_it_waits_for(self, operator: Client) -> None:
        unit()
        run = start(new_run().pk).run
        batch = Batch.objects.get()
        url = f"/admin/morango_celery/batch/{batch.pk}/change/"
        assert "Why it is open: It waits for a worker." in shown(operator, url)
        Batch.objects.filter(pk=batch.pk).update(attempted_by="1")
        assert "Why it is open: A worker has begun it." in shown(operator, url)
        Run.objects.filter(pk=run.pk).update(paused=True)
        assert "Why it is open: A pause holds its run." in shown(operator, url)
        execute_batch(batch.pk)
        assert "Why it is open" not in shown(operator, url)

        first, second = (Batch.of(run, number, ["ab" * 16], split_from=1, offset=number) for number in (2, 3))
        Batch.objects.bulk_create([first, second])
        Run.objects.filter(pk=run.pk).update(paused=False)
        later = Batch.objects.get(number=3)
        text = shown(operator, f"/admin/morango_celery/batch/{later.pk}/change/")
        assert "Why it is open: It waits for another batch, which comes before it." in text


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


class TestFilterByFacility:
    ONE, OTHER = "1a" * 16, "2b" * 16

    def test_runs_of_one_facility_are_found_by_the_beginning_of_their_first_prefix(
        self, operator: Client
    ) -> None:
        of_one = {
            new_run(filter=text).pk
            for text in (
                self.ONE,
                f"{self.ONE}:user",
                f"{self.ONE}\n{self.OTHER}",
                f"{self.ONE}:a\n{self.OTHER}",
            )
        }
        of_other = {new_run(filter=text).pk for text in (self.OTHER, f"{self.OTHER}:x:{self.ONE}")}
        longer = new_run(filter=f"{self.ONE}0").pk
        of_all = new_run().pk

        assert listed(operator, f"facility={self.ONE}") == of_one
        assert listed(operator, f"facility={self.OTHER}") == of_other
        assert listed(operator, f"facility={self.ONE}0") == {longer}
        assert listed(operator, "facility=*") == {of_all}
        assert listed(operator) == {*of_one, *of_other, longer, of_all}

    def test_facilities_are_offered_once_and_the_latest_first(self, operator: Client) -> None:
        for text in (self.ONE, self.OTHER, f"{self.ONE}:user:1", f"{self.ONE}:user:2\n{self.OTHER}", None):
            new_run(filter=text)

        offered = re.findall(r'"\?facility=([^"&]*)"', operator.get(RUNS).content.decode())

        assert list(dict.fromkeys(offered)) == ["%2A", self.ONE, self.OTHER]

    def test_text_that_no_filter_can_have_finds_the_way_back_to_the_list(self, operator: Client) -> None:
        assert operator.get(f"{RUNS}?facility=%00")["Location"].endswith("?e=1")
        assert listed(operator, "facility=%25") == set()

    def test_facility_that_is_not_offered_any_more_stays_chosen(self, operator: Client) -> None:
        assert self.ONE[:8] in shown(operator, f"{RUNS}?facility={self.ONE}")
