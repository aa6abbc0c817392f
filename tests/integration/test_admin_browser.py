"""An operator's night, in a browser: a real server, a real worker, and the events between them."""

from __future__ import annotations

import json
import os
import re
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from morango.models import Store
from selenium.webdriver import Chrome
from selenium.webdriver.common.by import By

import morango_celery
from morango_celery.models import Batch, Run
from morango_celery.runs import completion
from tests.support.browser import chromium
from tests.support.factories import SCHOOL_ID, build_store_row, fill_store, store_row
from tests.support.operators import OPERATE, PASSWORD, make_account
from tests.support.run_helpers import new_run
from tests.support.waiting import child_that_waits_for_a_lock, held, until
from tests.support.workers import StartServer, StartWorker
from worker.school.models import PROFILE, Lesson, Unit

RECORDS = 1_000
LATE_UNIT = "ab" * 16
WITHOUT_UNIT = 12


def earlier_runs() -> None:
    """Make the other runs of the list in which a run is looked for."""
    for number in range(3):
        school_id = f"{number + 1:02x}" * 16
        fill_store(100 * (number + 1), school_id=school_id)
        morango_celery.deserialize(PROFILE, [school_id], in_process=True)
    failed = new_run(transfer_session_id="7f" * 16)
    completion.fail(failed.pk, MemoryError("The worker has no memory left."))


def school_with_errors() -> None:
    fill_store(RECORDS)
    for _ in range(WITHOUT_UNIT):
        store_row("lesson", unit_id=LATE_UNIT)
    for year in (1066, 1492, 1789):
        store_row("learner", unit=Store.objects.filter(model_name="unit").first(), birth_year=year)
    store_row("unit", name=None)
    store_row("spaceship")


class Page:
    def __init__(self, window: Chrome, url: str) -> None:
        self.window = window
        self.url = url
        self.pictures = os.environ.get("SCREENSHOTS")

    def log_in(self) -> None:
        self.window.get(f"{self.url}/admin/")
        self.window.find_element(By.NAME, "username").send_keys("operator")
        self.window.find_element(By.NAME, "password").send_keys(PASSWORD)
        self.click("//input[@type='submit']")

    def click(self, path: str) -> None:
        """Click the element at the XPath, and wait for the next page.

        In one script, because a run's page may be fetched anew between finding and clicking; and
        WebDriver's own click doesn't wait for a page that is slow to come.
        """
        script = """
            const found = document.evaluate(arguments[0], document, null, XPathResult.ANY_TYPE).iterateNext();
            if (found) { window.isLeft = true; found.click(); }
            return found !== null;
        """
        until(lambda: self.window.execute_script(script, path), f"on a page that has {path}")
        arrived = "return !window.isLeft && document.readyState === 'complete'"
        until(lambda: self.window.execute_script(arrived), f"on the page that {path} leads to")

    def follow(self, text: str) -> None:
        self.click(f"//a[normalize-space()='{text}']")

    def press(self, text: str) -> None:
        self.click(f"//button[text()='{text}']")

    def begin_at(self, name: str) -> None:
        self.window.get(f"{self.url}/admin/")
        self.follow(name)

    def rows(self) -> list[list[str]]:
        found = self.window.find_elements(By.CSS_SELECTOR, "#result_list tbody tr")
        return [[cell.text for cell in row.find_elements(By.CSS_SELECTOR, "th, td")] for row in found]

    def row(self, text: str) -> list[str]:
        return next(row for row in self.rows() if text in row)

    def text(self, selector: str) -> str:
        """Also while the page is fetched anew."""
        script = "return (document.querySelector(arguments[0]) || {}).innerText || ''"
        found: str = self.window.execute_script(script, selector)
        return found

    def progress(self) -> tuple[float, float]:
        """Return the value of the progress bar, and its maximum."""
        script = "const bar = document.querySelector('progress'); return bar ? [bar.value, bar.max] : [0, 0]"
        value, most = self.window.execute_script(script)
        return value, most

    def is_cut(self, selector: str) -> bool:
        """Return True if a part of the element can only be seen by scrolling sideways."""
        script = "const e = document.querySelector(arguments[0]); return e.scrollWidth > e.clientWidth"
        found: bool = self.window.execute_script(script, selector)
        return found

    def picture(self, name: str, folder: Path) -> None:
        assert self.window.save_screenshot(str(Path(self.pictures or folder) / f"admin-{name}.png"))


def mend() -> None:
    """Let there be the unit that lessons were in error for."""
    row = build_store_row("unit", id=LATE_UNIT)
    unit: Any = Unit.deserialize(json.loads(row.serialized))
    unit.save(update_dirty_bit_to=False)


def test_operator_watches_cancels_looks_for_errors_and_retries_them(
    live_http_server: StartServer, celery_worker_process: StartWorker, tmp_path: Path
) -> None:
    """SCREENSHOTS=docs/how-to keeps the pictures there."""
    with chromium(1280, 800) as window, ExitStack() as stack:
        # Given a run that is held up among its first attempts, and will be again among its last
        page = Page(window, live_http_server(DEBUG="1"))
        worker = celery_worker_process(concurrency=1, MORANGO_CELERY_BATCH_SIZE_RECORDS="50")
        make_account("operator", OPERATE)
        earlier_runs()
        school_with_errors()
        attempts = Store.objects.filter(model_name="attempt", dirty_bit=True).order_by("partition")
        first, last = attempts.earliest("partition"), attempts.latest("partition")
        holder = stack.enter_context(held(last.id))
        with held(first.id) as first_holder:
            run = morango_celery.deserialize(PROFILE, [SCHOOL_ID])
            until(lambda: child_that_waits_for_a_lock(worker.pid, first_holder), "held up")

            # When an operator opens the list of runs
            page.log_in()
            page.follow("Runs")

            # Then it shows how far the run is
            done, total = page.progress()
            assert 0 < done < total == Store.objects.filter(partition__startswith=SCHOOL_ID).count()
            number, state, records, facility, *_ = page.row("running")[1:]
            assert (number, state) == (str(run.pk), "running")
            progress = rf"{done:,.0f} of {total:,.0f}; [\d,.]+ a second, about .* left"
            assert re.fullmatch(progress, records)
            assert facility.split() == [f"{SCHOOL_ID[:8]}…", PROFILE]
            assert not page.is_cut(".results")
            page.picture("runs", tmp_path)
            page.follow(number)
            assert page.progress() == (done, total)

        # When it goes on, then its page shows that by itself
        until(lambda: page.progress()[0] > done, "showing progress")
        until(lambda: child_that_waits_for_a_lock(worker.pid, holder), "held up again")
        until(lambda: page.progress()[0] > total / 2, "showing that it is nearly done")
        assert f"{WITHOUT_UNIT} x lesson: " in page.text(".morango-errors")
        page.picture("run", tmp_path)

        # When the application's first page is opened, then it tells what goes on, and refreshes itself
        window.get(f"{page.url}/admin/morango_celery/")
        until(lambda: page.text(".morango-tiles"), "telling what goes on")
        assert "1 run" in page.text(".morango-tiles")
        assert f"Run {number}" in page.text(".morango-now-runs")
        assert not page.is_cut("html")
        page.picture("now", tmp_path)
        told = page.text("#morango-now")
        window.execute_script("window.isTheSame = true")
        until(lambda: page.text("#morango-now") != told, "refreshed")
        assert window.execute_script("return window.isTheSame")
        page.follow(f"Run {number}")

        # When the operator cancels it
        page.press("Cancel")
        assert f"run {run.pk} of school (running)" in page.text("#content")
        assert Run.objects.get(pk=run.pk).state == Run.State.RUNNING
        page.click("//input[@value='Cancel 1 run']")

        # Then it is cancelled, and the list says so
        assert f"Run {run.pk} is cancelled; " in page.text(".messagelist .success")
        assert page.row("cancelled")[1] == str(run.pk)

        # and its timeline shows the worker's batches
        page.follow(str(run.pk))
        page.follow("Timeline")
        assert f"Run {run.pk} is cancelled. " in page.text("#content-main p")
        done = Batch.objects.filter(run=run, state=Batch.State.DONE).count()
        drawn = window.find_elements(By.CSS_SELECTOR, "svg.morango-timeline rect.batch")
        assert done > 3
        assert len(drawn) >= done
        assert not page.is_cut("html")
        page.picture("timeline", tmp_path)
        stack.close()

        # When the operator looks for errors
        page.begin_at("Records in error")

        # Then they are counted by what they are
        groups = {(row[2], row[3].rpartition(".")[2]): row[0] for row in page.rows()}
        assert groups == {
            ("lesson", "IntegrityError"): str(WITHOUT_UNIT),
            ("learner", "ValidationError"): "3",
            ("unit", "ValidationError"): "1",
        }
        page.picture("errors", tmp_path)

        # and one by one they say why
        page.follow(str(WITHOUT_UNIT))
        rows = page.rows()
        assert len(rows) == WITHOUT_UNIT
        assert all(f"references non-existent unit instance with id '{LATE_UNIT}'" in row[4] for row in rows)
        page.follow(rows[0][1])
        assert "references non-existent unit" in page.text(".field-deserialization_error")

        # When the cause is mended, and they are tried again
        mend()
        page.begin_at("Records in error")
        page.press("Retry all failed records of school")
        assert page.text(".messagelist .success").endswith("Workers take it from here.")
        page.click("//*[@class='messagelist']//a")

        # Then those are saved, and the others still in error
        until(lambda: page.text(".field-signs_of_life span") == "completed", "showing the end")
        assert page.text(".field-outcome .readonly") == f"{WITHOUT_UNIT} saved, 4 failed"
        assert Lesson.objects.filter(unit_id=LATE_UNIT).count() == WITHOUT_UNIT
        page.begin_at("Records in error")
        assert [row[2] for row in page.rows()] == ["learner", "unit"]
