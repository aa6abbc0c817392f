"""Records that a failed or cancelled run has left: they wait, and it is told where they are."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from django.test import Client
from morango.models.certificates import Filter

from morango_celery.models import Run
from morango_celery.runs import completion
from morango_celery.runs.control import cancel
from morango_celery.runs.producer import create_run, start
from morango_celery.runs.workers import note_worker
from tests.integration.admin_pages import page_of
from tests.integration.admin_pages import shown as page_text
from tests.integration.status_command import shown, told
from tests.support.factories import SCHOOL_ID, store_row
from tests.support.run_helpers import MISSING, carry_out, new_run
from worker.school.models import PROFILE

pytestmark = pytest.mark.django_db

ENDS: dict[str, Callable[[Run], object]] = {
    "failed": lambda run: completion.fail(run.pk, RuntimeError("no")),
    "cancelled": lambda run: cancel(run.pk),
}


@pytest.fixture(autouse=True)
def _worker() -> None:
    note_worker("celery@here")


def records_in_error() -> None:
    """Have three lessons in error, and one of another school."""
    for _ in range(3):
        store_row("lesson", unit_id=MISSING)
    store_row("lesson", unit_id=MISSING, school_id="0b" * 16)
    carry_out()
    assert told()["in_error"] == 4


@pytest.mark.parametrize("retry_errors", [False, True])
@pytest.mark.parametrize("end", ENDS)
def test_run_that_has_begun_and_ended_tells_the_records_that_it_left(end: str, retry_errors: bool) -> None:
    # Given records in error, and a run that clears their errors, but comes to no end
    records_in_error()
    run = create_run(
        PROFILE,
        Filter(SCHOOL_ID),
        serialize_first=False,
        session_notified=True,
        retry_errors=retry_errors,
    )
    start(run.pk)
    assert told(str(run.pk))["records"]["waiting"] == 3
    ENDS[end](run)

    # Then they are not in error, and it is told that they wait, and for what
    assert (told()["in_error"], told()["waiting"]) == (1, 3)
    assert told(str(run.pk))["records"]["waiting"] == 3
    text = shown(str(run.pk))[1]
    assert "  3 records wait under its filter, without an error: `manage.py retry_run " in text
    assert (
        "3 records wait to be tried, without an error: their next sync takes them, or `manage.py"
        in shown()[1]
    )
    assert ("retry_run` of the run that failed" in shown()[1]) is (end == "failed")

    # ... until another run takes them
    again = new_run()
    assert "3 records wait to be tried, without an error.\n" in shown()[1]
    carry_out(again)
    assert (told()["in_error"], told()["waiting"]) == (4, 0)
    assert told(str(run.pk))["records"]["waiting"] == 0
    assert " wait" not in shown(str(run.pk))[1]
    assert " wait" not in shown()[1]


def test_completed_run_leaves_none() -> None:
    records_in_error()
    run = Run.objects.get()
    assert told(str(run.pk))["records"]["waiting"] is None


@pytest.mark.parametrize("end", ENDS)
def test_page_of_a_run_tells_the_records_that_it_left(operator: Client, end: str) -> None:
    store_row("lesson", unit_id=MISSING)
    run = new_run()
    start(run.pk)
    assert "records that wait" not in page_text(operator, page_of(run)).lower()
    ENDS[end](run)

    page = page_text(operator, page_of(run))

    assert "records that wait: 1 record waits under its filter, without an error" in page.lower()
