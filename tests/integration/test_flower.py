"""Flower's pages about runs: a real Flower, which listens to a real worker."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest
import requests
from django.db import connection
from morango.models import Store
from selenium.webdriver.common.by import By

import morango_celery
from morango_celery.api import wait_for
from morango_celery.contrib.flower.rows import result_text
from morango_celery.models import Run
from tests.support import factories
from tests.support.browser import chromium
from tests.support.processes import PATIENCE_SECONDS, LoggedProcess
from tests.support.waiting import child_that_waits_for_a_lock, held, until
from tests.support.workers import StartWorker
from worker.school.models import PROFILE
from worker.services import free_port

LOGIN = ("operator", "a dummy: password, of all signs")
RECORDS, BROKEN = 900, 3
FLOWER = ["morango_celery.contrib.flower", "--address=127.0.0.1"]

WITHOUT_PROJECT = {"SECRET_KEY": "", "DATABASE_URL": "", "DJANGO_SETTINGS_MODULE": ""}
"""Variables of the project, none of which Flower is to need."""


class Flower:
    def __init__(self, port: int) -> None:
        self.address = f"127.0.0.1:{port}"

    def get(self, path: str, auth: tuple[str, str] | None = LOGIN) -> requests.Response:
        return requests.get(f"http://{self.address}{path}", auth=auth, timeout=PATIENCE_SECONDS)

    def tasks(self) -> dict[str, dict[str, Any]]:
        """Return the tasks of its HTTP API, by their ids."""
        found: dict[str, dict[str, Any]] = self.get("/api/tasks").json()
        return found

    def rows(self, task: str) -> list[dict[str, Any]]:
        """Return the rows that the page requests."""
        answer = self.get(
            "/tasks/datatable?draw=1&start=0&length=1000"
            "&order[0][column]=0&order[0][dir]=asc&columns[0][data]=name"
        )
        rows: list[dict[str, Any]] = answer.json()["data"]
        return [row for row in rows if row["name"] == f"morango_celery.{task}"]


@pytest.fixture
def flower(redis_url: str, tmp_path: Path) -> Iterator[Flower]:
    port = free_port()
    process = LoggedProcess(
        [*FLOWER, f"--port={port}"],
        tmp_path / "flower.log",
        {
            **WITHOUT_PROJECT,
            "REDIS_URL": redis_url,
            "NO_PROXY": "127.0.0.1",
            "FLOWER_USER": LOGIN[0],
            "FLOWER_PASSWORD": LOGIN[1],
        },
    )
    process.wait_for_log("Connected to redis")
    yield Flower(port)
    process.kill()  # it has nothing to lose


@pytest.fixture
def worker(flower: Flower, celery_worker_process: StartWorker) -> LoggedProcess:
    """One that Flower knows of, and that takes records a hundred at a time."""
    process = celery_worker_process(concurrency=1, MORANGO_CELERY_BATCH_SIZE_RECORDS="100")
    process.wait_until(lambda: any(flower.get("/api/workers?status=1").json().values()), "known")
    return process


@pytest.mark.parametrize("missing", ["FLOWER_USER", "FLOWER_PASSWORD", "REDIS_URL"])
def test_flower_does_not_start_without_a_login_or_a_broker(missing: str, tmp_path: Path) -> None:
    needed = {"FLOWER_USER": LOGIN[0], "FLOWER_PASSWORD": LOGIN[1], "REDIS_URL": "redis://127.0.0.1:1/0"}
    process = LoggedProcess(FLOWER, tmp_path / "flower.log", {**needed, **WITHOUT_PROJECT, missing: ""})

    assert process.wait_until_ended() == 1
    assert f"error: The environment variable {missing} is not set." in process.log()


@pytest.mark.needs_postgresql
def test_flower_shows_nothing_to_strangers_and_lets_nobody_interfere(flower: Flower) -> None:
    for path in ("/", "/tasks", "/api/tasks", "/api/workers"):
        assert flower.get(path, auth=None).status_code == 401
        assert flower.get(path, auth=(LOGIN[0], "a guess")).status_code == 401
        assert flower.get(path).status_code == 200
    answer = requests.post(
        f"http://{flower.address}/api/task/send-task/morango_celery.recover_runs",
        auth=LOGIN,
        timeout=PATIENCE_SECONDS,
    )
    assert answer.status_code == 403


def test_row_tells_what_it_is_what_came_of_it_and_how_far_its_run_is(
    flower: Flower, worker: LoggedProcess
) -> None:
    # Given a run held up in the middle
    factories.fill_store(RECORDS)
    for _ in range(BROKEN):
        factories.store_row("lesson", unit_id="ab" * 16)
    last = Store.objects.filter(model_name="attempt").latest("id")
    with held(last.id) as holder:
        run = morango_celery.deserialize(PROFILE)
        start = f"run-{run.pk}"
        until(lambda: child_that_waits_for_a_lock(worker.pid, holder), "in the middle")

        # Then the row of its start tells how far it has come
        shown = until(
            lambda: re.search(
                r"^running: ([\d,]+) of ([\d,]+) records so far, ([\d,]+) saved, 3 failed$",
                flower.tasks().get(start, {}).get("result") or "",
            ),
            "showing progress",
        )
        done, handed_out, saved = (int(number.replace(",", "")) for number in shown.groups())
        assert 0 < saved == done - BROKEN < handed_out <= RECORDS + BROKEN

        # When the database cuts the session of a batch
        with connection.cursor() as cursor:
            cursor.execute(
                "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
                " WHERE %s = ANY(pg_blocking_pids(pid))",
                [holder],
            )
        until(lambda: "TransientError" in worker.log(), "retried")
    wait_for(run, PATIENCE_SECONDS)

    # Then each row tells of one batch, though it was retried, and all add up
    assert (run.state, run.saved, run.failed) == (Run.State.COMPLETED, RECORDS, BROKEN)
    completed = f"completed: {RECORDS + BROKEN} records, {RECORDS} saved, {BROKEN} failed"
    until(lambda: flower.tasks()[start]["result"] == completed, "showing the end")
    batches = run.batches.count()
    until(
        lambda: [row["state"] for row in flower.rows("deserialize_batch")] == ["SUCCESS"] * batches, "shown"
    )
    rows = flower.rows("deserialize_batch")
    described = re.compile(r"^\(([\w +]+) x (\d+), run (\d+), batch (\d+)/(\d+)\)$")
    matches = [described.match(row["args"]) for row in rows]
    assert [row["args"] for row, match in zip(rows, matches, strict=True) if match is None] == []
    assert sum(int(match[2]) for match in matches if match) == RECORDS + BROKEN
    assert {int(match[3]) for match in matches if match} == {run.pk}
    results = [row["result"] for row in rows]
    assert [result for result in results if not re.fullmatch(r"\d+ saved(, \d+ failed)?", result)] == []
    assert sum(int(result.split()[0]) for result in results) == RECORDS
    assert max(row["retries"] or 0 for row in rows) == 1
    (row,) = flower.rows("start_run")
    assert (row["args"], row["state"], row["result"]) == (f"(run {run.pk} of school)", "SUCCESS", completed)


@pytest.mark.needs_postgresql
def test_run_that_was_cancelled_is_shown_as_such(flower: Flower, worker: LoggedProcess) -> None:
    # Given a run that is cancelled in the middle, by no worker
    factories.fill_store(RECORDS)
    last = Store.objects.filter(model_name="attempt").latest("id")
    with held(last.id) as holder:
        run = morango_celery.deserialize(PROFILE)
        until(lambda: child_that_waits_for_a_lock(worker.pid, holder), "in the middle")
        morango_celery.cancel(run.pk)

    # Then workers that come upon it tell
    until(lambda: (flower.tasks()[f"run-{run.pk}"]["result"] or "").startswith("cancelled: "), "told")


def test_page_shows_runs_and_batches(flower: Flower, worker: LoggedProcess, tmp_path: Path) -> None:
    """SCREENSHOTS=docs/how-to keeps the picture there."""
    # Given a run that is done
    factories.fill_store(RECORDS)
    for _ in range(BROKEN):
        factories.store_row("lesson", unit_id="ab" * 16)
    run = morango_celery.deserialize(PROFILE, wait=PATIENCE_SECONDS)

    # When the page of tasks is opened
    with chromium(1850, 1020) as window:
        login = f"{LOGIN[0]}:{quote(LOGIN[1], safe='')}"
        window.get(f"http://{login}@{flower.address}/tasks")

        # Then it lists the run with what came of it, and batches with what they are and what came of them
        def shown() -> list[list[str]]:
            rows = window.find_elements(By.CSS_SELECTOR, "#tasks-table tbody tr")
            return [[cell.text for cell in row.find_elements(By.TAG_NAME, "td")] for row in rows]

        def starts() -> list[str]:
            return [row[3] for row in shown() if row[0] == "morango_celery.start_run"]

        completed = f"completed: {RECORDS + BROKEN} records, {RECORDS} saved, {BROKEN} failed"
        until(lambda: starts() == [completed], "showing the run")
        batches = [row for row in shown() if row[0] == "morango_celery.deserialize_batch"]
        full = next(row for row in batches if row[1].startswith("(attempt x 100, "))
        assert full[2:4] == ["SUCCESS", "100 saved"]
        assert f", run {run.pk}, batch " in full[1]
        folder = Path(os.environ.get("SCREENSHOTS", tmp_path))
        assert window.save_screenshot(str(folder / "flower.png"))


BATCH, START = "morango_celery.deserialize_batch", "morango_celery.start_run"


@pytest.mark.parametrize(
    ("task", "result", "exception", "text"),
    [
        (BATCH, "{'saved': 1990, 'deleted': 0, 'failed': 10}", None, "1,990 saved, 10 failed"),
        (BATCH, "{'saved': 0, 'failed': 0}", None, "nothing to do"),
        (BATCH, None, "TransientError('gone')", "TransientError('gone')"),
        (BATCH, None, None, None),
        (START, "'run 1 of school (completed)'", None, "run 1 of school (completed)"),
        (START, "running: 5 of 10 records so far", None, "running: 5 of 10 records so far"),
        ("morango_celery.recover_runs", "3", None, "3"),
        ("others.task", "{'saved': 0}", None, "{'saved': 0}"),
        (None, "{'saved': 0}", None, "{'saved': 0}"),
    ],
)
def test_result_is_readable(
    task: str | None, result: str | None, exception: str | None, text: str | None
) -> None:
    assert result_text(task, result, exception) == text
