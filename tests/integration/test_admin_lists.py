"""All pages of the admin: their cost, their permissions, and the contents that they never show."""

from __future__ import annotations

import re
import subprocess
import sys
from collections.abc import Callable

import pytest
from django.db import connection
from django.test import Client
from django.test.utils import CaptureQueriesContext
from morango.models import Store

from morango_celery.models import Batch, Comparison, Pause, Run
from morango_celery.oplog.models import DeadLetter, IngestSource
from tests.support.factories import store_row
from tests.support.operators import LOOK, OPERATE, logged_in
from tests.support.processes import ROOT
from tests.support.run_helpers import ago, new_run

pytestmark = pytest.mark.django_db

RUNS = "/admin/morango_celery/run/"
BATCHES = "/admin/morango_celery/batch/"
GROUPS = "/admin/morango_celery/recordinerror/"
ROWS = f"{GROUPS}rows/"
LETTERS = "/admin/morango_celery_oplog/deadletter/"
COMPARISONS = "/admin/morango_celery/comparison/"
PAUSES = "/admin/morango_celery/pause/"
LISTS = (RUNS, BATCHES, COMPARISONS, GROUPS, ROWS, LETTERS, PAUSES)
SECRET = "Ada Lovelace"


def make_runs(number: int) -> None:
    states = [Run.State.RUNNING, Run.State.COMPLETED, Run.State.PENDING, Run.State.FAILED]
    for n in range(number):
        state = states[n % len(states)]
        new_run(state=state, records=5, saved=3, failed=1, started_at=ago(10), error="It broke." * (n % 2))


def make_batches(number: int) -> None:
    run = new_run(state=Run.State.RUNNING, stage=1)
    other = new_run(state=Run.State.RUNNING, stage=1)
    for n in range(number):
        Batch.of((run, other)[n % 2], n, ["ab" * 16], last_error="It broke." * (n % 2)).save()


def make_errors(number: int) -> None:
    made = Store.objects.count()
    for n in range(made, made + number):
        store_row(
            "learner",
            full_name=SECRET,
            columns={
                "deserialization_error": f"error {n}",
                "deserialization_exception": f"package.Error{n}",
                "conflicting_serialized_data": f"{SECRET}, conflicting",
            },
        )


def make_letters(number: int) -> None:
    for n in range(number):
        source, _ = IngestSource.objects.get_or_create(name=f"source {n}")
        DeadLetter.objects.create(source=source, path="a", offset=n, text="text", reason="reason")


def make_comparisons(number: int) -> None:
    made = Comparison.objects.count()
    for n in range(made, made + number):
        Comparison.objects.create(transfer_session_id=f"{n:032x}", state="failed", error="It broke.")


def make_pauses(number: int) -> None:
    Pause.objects.bulk_create(Pause(profile="school", reason=f"reason {n}") for n in range(number))


MAKE: dict[str, Callable[[int], None]] = {
    RUNS: make_runs,
    BATCHES: make_batches,
    GROUPS: make_errors,
    ROWS: make_errors,
    LETTERS: make_letters,
    COMPARISONS: make_comparisons,
    PAUSES: make_pauses,
}


def rows_of(page: str) -> int:
    table = re.search(r'<table id="result_list">.*?</table>', page, re.DOTALL)
    assert table, "no table"
    return len(re.findall("<tr", table[0])) - 1  # without the headings


@pytest.mark.parametrize("page", LISTS)
def test_number_of_queries_does_not_depend_on_the_rows(page: str) -> None:
    operator = logged_in("operator", OPERATE)
    counted = []
    for more, rows in ((5, 5), (45, 50)):
        MAKE[page](more)
        operator.get(page)  # content types are cached then
        with CaptureQueriesContext(connection) as queries:
            shown = operator.get(page).content.decode()
        assert rows_of(shown) == rows
        counted.append([query["sql"] for query in queries])
    few, many = counted
    assert len(few) == len(many), "\n".join(many)


@pytest.mark.parametrize("page", LISTS)
def test_empty_list_is_shown(page: str) -> None:
    assert logged_in("operator", OPERATE).get(page).status_code == 200


def pages_of_one() -> list[str]:
    """Return the page of a row of each kind, and that of its history."""
    for make in (make_runs, make_batches, make_errors, make_letters, make_comparisons):
        make(4)
    record = store_row("unit", columns={"deserialization_error": "x", "deserialization_exception": "y.Z"})
    ones = [
        *(f"{RUNS}{pk}/" for pk in Run.objects.values_list("pk", flat=True)),
        *(f"{BATCHES}{pk}/" for pk in Batch.objects.values_list("pk", flat=True)),
        f"{GROUPS}{record.pk}/",
        f"{LETTERS}{DeadLetter.objects.latest('pk').pk}/",
        f"{COMPARISONS}{Comparison.objects.latest('pk').pk}/",
    ]
    return [f"{one}{page}/" for one in ones for page in ("change", "history")]


def test_user_who_may_view_sees_all_and_changes_nothing() -> None:
    ones = pages_of_one()
    guest = logged_in("guest", LOOK)
    for page in (*LISTS, *ones):
        shown = guest.get(page)
        assert shown.status_code == 200, page
        main = shown.content.decode().partition('<div id="content-main">')[2]
        assert "<button" not in main, page
        assert 'name="action"' not in main, page
        assert 'name="_save"' not in main, page
        assert "<textarea" not in main, page
    for page in (RUNS, BATCHES, COMPARISONS, GROUPS, LETTERS, PAUSES):
        assert guest.get(f"{page}add/").status_code == 403
    for page in ones:
        if page.endswith("/change/"):
            assert guest.post(page, {"state": "completed"}).status_code == 403
            assert guest.get(page.replace("/change/", "/delete/")).status_code == 403


def test_nobody_changes_or_deletes_the_ledger_by_hand(admin_client: Client) -> None:
    for page in pages_of_one():
        if page.endswith("/change/") and not page.startswith(LETTERS):
            assert admin_client.post(page, {"state": "completed"}).status_code == 403
            assert admin_client.post(page.replace("/change/", "/delete/"), {"post": "yes"}).status_code == 403
    for page in (RUNS, BATCHES, COMPARISONS, ROWS):
        shown = admin_client.get(page).content.decode()
        assert "delete_selected" not in shown
        assert "/add/" not in shown.partition('<div id="content-main">')[2]


@pytest.mark.parametrize("codenames", [(), ("view_deadletter",)])
def test_user_who_may_not_view_sees_nothing(codenames: tuple[str, ...]) -> None:
    ones = [page for page in pages_of_one() if not page.startswith(LETTERS)]
    stranger = logged_in("stranger", codenames)
    for page in (RUNS, BATCHES, COMPARISONS, GROUPS, ROWS, PAUSES, *ones):
        assert stranger.get(page).status_code == 403, page
    assert Client().get(RUNS).status_code == 302


def test_no_page_shows_what_is_in_a_record(admin_client: Client) -> None:
    for page in pages_of_one():
        assert SECRET not in admin_client.get(page).content.decode()
    for page in LISTS:
        assert SECRET not in admin_client.get(page).content.decode()
    # Nor does any read it from the database
    record = store_row(
        "unit", name=SECRET, columns={"deserialization_error": "x", "deserialization_exception": "y.Z"}
    )
    for page in (GROUPS, ROWS, f"{ROWS}?q={SECRET}", f"{GROUPS}{record.pk}/change/"):
        with CaptureQueriesContext(connection) as queries:
            admin_client.get(page)
        assert not [query for query in queries if "serialized" in query["sql"]]


def test_pages_work_where_inline_scripts_and_styles_are_forbidden(admin_client: Client) -> None:
    run = new_run(state=Run.State.RUNNING, records=5, saved=3, started_at=ago(10))
    make_errors(1)
    for page in (*LISTS, f"{RUNS}{run.pk}/change/"):
        main = admin_client.get(page).content.decode().partition('<div id="content-main">')[2]
        assert main
        assert not re.search(r"<style|\sstyle=|\son\w+=|javascript:", main), page
        for script in re.findall(r"<script[^>]*>", main):  # Django's own
            assert "src=" in script, page


def test_styles_are_found(admin_client: Client) -> None:
    from django.contrib.staticfiles import finders

    make_errors(1)
    for page in LISTS:
        if page != LETTERS:
            assert "/static/morango_celery/admin.css" in admin_client.get(page).content.decode()
    assert finders.find("morango_celery/admin.css")


def test_project_without_the_admin_has_none() -> None:
    code = (
        "import django, sys; django.setup(); from morango_celery.models import RecordInError; "
        "assert not [name for name in sys.modules if 'admin' in name.split('.')], sys.modules.keys(); "
        # Since Django 4.1, this imports all libraries of template tags; django-mptt has one for the admin
        "from django.core.management import call_command; call_command('check'); "
        "assert 'morango_celery.admin' not in sys.modules, sys.modules.keys()"
    )
    process = subprocess.run(
        [sys.executable, "-c", code],
        cwd=ROOT,
        env={"DJANGO_SETTINGS_MODULE": "tests.unit.bare_settings", "PATH": ""},
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert process.returncode == 0, process.stderr
