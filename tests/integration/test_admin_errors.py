"""Records in error in the admin: in groups, one by one, and tried again."""

from __future__ import annotations

import html
import re
from typing import Any

import pytest
from django.contrib import admin
from django.core.management import call_command
from django.db import OperationalError, connection, transaction
from django.test import Client
from morango.models import Store

from morango_celery.admin.sql import time_limit
from morango_celery.db.dialect import dialect
from morango_celery.errors import QueryTimeoutError
from morango_celery.models import Run
from tests.support.factories import SCHOOL_ID, fill_store, store_row
from tests.support.operators import LOOK, logged_in
from tests.support.run_helpers import errors, new_run
from tests.support.waiting import held_store
from worker.school.models import PROFILE, Unit

pytestmark = [pytest.mark.django_db, pytest.mark.usefixtures("serializable_in_a_transaction")]

GROUPS = "/admin/morango_celery/recordinerror/"
ROWS = f"{GROUPS}rows/"
OTHER_SCHOOL = "ab" * 16


@pytest.fixture
def _here(settings: Any) -> None:
    settings.MORANGO_CELERY = {"IN_PROCESS": True}


def in_error(model: str = "unit", error: str = "broken", exception: str = "a.B", **options: Any) -> Store:
    columns = {"deserialization_error": error, "deserialization_exception": exception}
    return store_row(model, columns=columns, **options)


def cells(client: Client, page: str) -> list[list[str]]:
    """Return the texts of a list's rows, without their check boxes and buttons."""
    answer = client.get(page, follow=True)
    assert answer.status_code == 200
    table = re.search(r"<tbody>(.*?)</tbody>", answer.content.decode(), re.DOTALL)
    if table is None:
        return []
    rows = re.findall(r"<tr.*?</tr>", table[1], re.DOTALL)
    found = [re.findall(r"<t[hd][^>]*>(.*?)</t[hd]>", row, re.DOTALL) for row in rows]
    texts = [[html.unescape(re.sub(r"<[^>]*>", "", cell)) for cell in row] for row in found]
    return [[text for text in row if text and text.strip() != "Retry"] for row in texts]


def ids(client: Client, query: str = "") -> set[str]:
    return {row[0] for row in cells(client, f"{ROWS}?{query}")}


def messages_of(answer: Any) -> str:
    found = re.search(r'<ul class="messagelist">(.*?)</ul>', answer.content.decode(), re.DOTALL)
    return " ".join(html.unescape(re.sub(r"<[^>]*>", "", found[1])).split()) if found else ""


def retry(client: Client, *records: Store) -> str:
    form = {"action": "retry_partitions", "_selected_action": [record.id for record in records]}
    return messages_of(client.post(ROWS, form, follow=True))


class TestGroups:
    def test_errors_are_counted_with_an_example_the_most_frequent_first(self, operator: Client) -> None:
        for number in range(3):
            in_error("lesson", f"no unit {number}", "django.Missing")
        in_error("unit", "no name", "django.Invalid")
        in_error("lesson", "no title", "django.Invalid", profile="other")
        assert cells(operator, GROUPS) == [
            ["3", PROFILE, "lesson", "django.Missing", "no unit 2"],
            ["1", "other", "lesson", "django.Invalid", "no title"],
            ["1", PROFILE, "unit", "django.Invalid", "no name"],
        ]

    def test_records_without_an_error_are_not_listed(self, operator: Client) -> None:
        fill_store(10)  # waits
        in_error(dirty=False)  # was saved since
        store_row("unit", columns={"deserialization_error": ""})  # waits to be tried again
        assert cells(operator, GROUPS) == cells(operator, ROWS) == []
        assert "No record is in error." in operator.get(GROUPS).content.decode()

    def test_group_leads_to_its_records(self, operator: Client) -> None:
        wanted = {in_error("lesson", exception="django.Missing & more").id for _ in range(2)}
        in_error("lesson", exception="django.Invalid")
        in_error("unit", exception="django.Missing & more")
        in_error("lesson", exception="django.Missing & more", profile="other")
        page = operator.get(GROUPS).content.decode()
        link = re.search(r'<a href="([^"]*)">2</a>', page)
        assert link is not None
        assert {row[0] for row in cells(operator, html.unescape(link[1]))} == wanted

    def test_markup_in_an_error_is_text(self, operator: Client) -> None:
        record = in_error(error="<script>alert(1)</script>")
        for page in (GROUPS, ROWS, f"{GROUPS}{record.id}/change/"):
            answer = operator.get(page).content.decode()
            assert "&lt;script&gt;alert(1)" in answer
            assert "<script>alert(1)" not in answer


class TestRows:
    def test_whole_error_is_on_a_records_page(self, operator: Client) -> None:
        error = "\n".join(f"line {number} of a long story" for number in range(50))
        record = in_error(error=error)
        ((_, _, _, short, *_),) = cells(operator, ROWS)
        assert (len(short), short[:6], short[-1]) == (200, "line 0", "…")
        page = operator.get(f"{GROUPS}{record.id}/change/").content.decode()
        assert "line 49 of a long story" in page
        assert record.partition in page

    def test_records_are_found_by_filters_and_search(self, operator: Client) -> None:
        one = in_error("unit", "no name, 100%", "django.Invalid")
        other = in_error("lesson", "no unit", "django.Missing", profile="other", school_id=OTHER_SCHOOL)
        for query, found in {
            "": {one.id, other.id},
            "model_name=unit": {one.id},
            "deserialization_exception=django.Missing": {other.id},
            "profile=other": {other.id},
            "q=100%25": {one.id},
            f"q={OTHER_SCHOOL}:less": {other.id},
            f"q={one.id.upper()}": {one.id},
            f"q={one.id[:8]}-{one.id[8:12]}-{one.id[12:16]}-{one.id[16:20]}-{one.id[20:]}": {one.id},
            "q=nothing": set(),
            f"q={'9' * 30}": set(),
        }.items():
            assert ids(operator, query) == found, query

    def test_runs_filter_limits_the_records(self, operator: Client) -> None:
        here, there, elsewhere = (in_error(school_id=school) for school in (SCHOOL_ID, "cd" * 16, "ef" * 16))
        in_error(profile="other")
        run = Run.objects.create(profile=PROFILE, filter=f"{SCHOOL_ID}\n{SCHOOL_ID}:units\n{'cd' * 16}")
        assert ids(operator, f"run={run.pk}") == {here.id, there.id}
        assert ids(operator, f"run={new_run().pk}") == {here.id, there.id, elsewhere.id}

    @pytest.mark.parametrize("run", ["4711", "x", "9" * 30])
    def test_unknown_run_leads_back_to_the_list(self, operator: Client, run: str) -> None:
        assert operator.get(f"{ROWS}?run={run}").status_code == 302

    @pytest.mark.parametrize("lookup", ["serialized__contains", "conflicting_serialized_data", "source_id"])
    def test_contents_of_records_can_not_be_guessed_bit_by_bit(self, operator: Client, lookup: str) -> None:
        in_error()
        assert operator.get(f"{ROWS}?{lookup}=a").status_code == 400

    @pytest.mark.parametrize("record", ["x", "ab" * 16, "0"])
    def test_record_without_an_error_has_no_page(self, operator: Client, record: str) -> None:
        assert operator.get(f"{GROUPS}{record}/change/").status_code == 302

    def test_project_may_have_registered_the_store_itself(self, operator: Client) -> None:
        in_error()
        assert not admin.site.is_registered(Store)
        admin.site.register(Store)
        try:
            call_command("check")
            assert len(cells(operator, ROWS)) == 1
        finally:
            admin.site.unregister(Store)


@pytest.mark.usefixtures("_here")
class TestRetry:
    def test_all_failed_records_of_a_profile_are_retried(self, operator: Client) -> None:
        mended, broken = in_error(), in_error(name=None)
        waits = store_row("unit")

        answer = operator.post(f"{GROUPS}retry/", {"profile": PROFILE}, follow=True)

        run = Run.objects.get()
        assert (run.retry_errors, run.filter, run.saved, run.failed) == (True, None, 1, 1)
        text = f"Run {run.pk} retries all failed records of school. It is completed: 1 saved, 1 failed."
        assert messages_of(answer) == text
        assert {row[-1] for row in cells(operator, GROUPS)} == {"{'name': ['This field cannot be null.']}"}
        assert set(Unit.objects.values_list("id", flat=True)) == {mended.id}
        assert set(errors()) == {broken.id}
        assert Store.objects.get(id=waits.id).dirty_bit

    def test_only_users_with_permission_see_the_button(self, operator: Client) -> None:
        in_error(profile="<odd>")
        button = '<button name="profile" value="&lt;odd&gt;"'
        assert button in operator.get(GROUPS).content.decode()
        assert button not in logged_in("guest", LOOK).get(GROUPS).content.decode()

    def test_unknown_profile_is_refused_with_a_suggestion(self, operator: Client) -> None:
        answer = operator.post(f"{GROUPS}retry/", {"profile": "skool"}, follow=True)
        assert "Did you mean 'school'?" in messages_of(answer)
        assert "No installed app" in messages_of(operator.post(f"{GROUPS}retry/", follow=True))
        assert not Run.objects.exists()

    def test_users_without_permission_cannot_retry(self, operator: Client) -> None:
        record = in_error()
        guest = logged_in("guest", LOOK)
        assert guest.post(f"{GROUPS}retry/", {"profile": PROFILE}).status_code == 403
        retry(guest, record)
        assert Client().post(f"{GROUPS}retry/", {"profile": PROFILE}).status_code == 302
        assert operator.get(f"{GROUPS}retry/").status_code == 405
        strict = Client(enforce_csrf_checks=True)
        strict.cookies = operator.cookies
        assert strict.post(f"{GROUPS}retry/", {"profile": PROFILE}).status_code == 403
        assert not Run.objects.exists()

    def test_failed_records_in_the_partitions_of_records_are_retried(self, operator: Client) -> None:
        # Given records in error in two partitions of three, and one that isn't
        one, neighbour = in_error(), in_error()
        other = in_error(school_id=OTHER_SCHOOL)
        elsewhere = in_error(school_id="cd" * 16, error="not tried")

        # When a record of each of the two is chosen
        text = retry(operator, one, other)

        # Then what is in error there is tried again, and nothing else
        run = Run.objects.get()
        assert f"Run {run.pk} retries failed records in 2 partitions of school." in text
        assert list(run.sync_filter or ()) == sorted([one.partition, other.partition])
        assert set(Unit.objects.values_list("id", flat=True)) == {one.id, neighbour.id, other.id}
        assert Store.objects.get(id=elsewhere.id).deserialization_error == "not tried"

    @pytest.mark.django_db(transaction=True)
    def test_run_in_this_process_is_no_part_of_the_pages_transaction(
        self, operator: Client, settings: Any
    ) -> None:
        settings.MORANGO_TEST_POSTGRESQL = False  # Morango refuses to serialize in one
        assert "It is completed: 1 saved, 0 failed." in retry(operator, in_error())

    def test_each_profile_gets_a_run_or_a_reason(self, operator: Client) -> None:
        text = retry(operator, in_error(), in_error(profile="other"))
        assert Run.objects.count() == 1
        assert "in 1 partition of school. " in text
        assert "No installed app has syncable models of the profile 'other'" in text

    def test_partition_that_can_be_no_filter_is_refused(self, operator: Client) -> None:
        text = retry(operator, in_error(partition="with a space"))
        assert "The filter prefix 'with a space' contains white space" in text
        assert not Run.objects.exists()

    def test_more_than_100_partitions_are_refused(self, operator: Client) -> None:
        records = [in_error(partition=f"{SCHOOL_ID}:{number}") for number in range(101)]
        assert "lie in more than 100 partitions" in retry(operator, *records)
        assert not Run.objects.exists()
        assert "in 100 partitions of school" in retry(operator, *records[:100])

    def test_records_without_an_error_any_more_are_not_retried(self, operator: Client) -> None:
        record = in_error()
        Store.objects.update(dirty_bit=False)
        assert "are not in error any more" in retry(operator, record)


@pytest.mark.needs_postgresql
class TestTimeLimit:
    """Limits of the database's time for a page."""

    @staticmethod
    def in_force() -> str:
        with connection.cursor() as cursor:
            cursor.execute("SHOW statement_timeout")
            (setting,) = cursor.fetchone()
            return str(setting)

    @staticmethod
    def work_for(seconds: float) -> None:
        with connection.cursor() as cursor:
            cursor.execute("SELECT pg_sleep(%s)", [seconds])

    def write_and_work(self, limit_seconds: float) -> None:
        with time_limit(limit_seconds):
            new_run()
            self.work_for(60)

    def test_statement_over_the_time_limit_is_given_up_and_undone(self) -> None:
        with pytest.raises(QueryTimeoutError):
            self.write_and_work(limit_seconds=0.05)
        assert not Run.objects.exists()
        assert self.in_force() == "0"

    def test_limit_ends_with_its_block(self) -> None:
        with time_limit(7):
            assert self.in_force() == "7s"
            self.work_for(0)
        assert self.in_force() == "0"

    @pytest.mark.parametrize(("configured", "counts"), [("3s", "3s"), ("1h", "7s")])
    def test_shorter_limit_that_is_configured_stays(self, configured: str, counts: str) -> None:
        with transaction.atomic():
            with connection.cursor() as cursor:
                cursor.execute("SELECT set_config('statement_timeout', %s, true)", [configured])
            with time_limit(7):
                assert self.in_force() == counts
            assert self.in_force() == configured

    def test_other_failures_keep_their_error(self) -> None:
        with pytest.raises(OperationalError, match="mine"), time_limit(7):
            raise OperationalError("mine")

    @pytest.mark.django_db(transaction=True)
    @pytest.mark.parametrize("page", [GROUPS, ROWS])
    def test_page_says_that_it_took_too_long(
        self, operator: Client, page: str, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        in_error()
        monkeypatch.setattr("morango_celery.admin.error_groups.GROUPING_SECONDS", 0.1)
        monkeypatch.setattr("morango_celery.admin.records_in_error.LISTING_SECONDS", 0.1)
        with held_store():
            answer = operator.get(page, follow=True)
        assert "The database was given a few seconds for this, and needs more." in messages_of(answer)
        assert "No record is in error" not in answer.content.decode()
        assert len(cells(operator, page)) == 1


def test_page_has_no_time_limit_on_sqlite() -> None:
    if dialect().has_one_writer:
        with time_limit(0.001):
            new_run()
        assert Run.objects.exists()
