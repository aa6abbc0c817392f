"""Metrics for Prometheus: they agree with the ledger in every process."""

from __future__ import annotations

import math
import re
import subprocess
import sys
from collections.abc import Callable
from datetime import timedelta
from typing import Any

import pytest
from django.test import Client
from django.utils import timezone
from morango.models import Store
from prometheus_client import CollectorRegistry
from prometheus_client.openmetrics import parser as openmetrics

from morango_celery import upstream
from morango_celery.api import runs_in_process
from morango_celery.metrics.collector import LedgerCollector
from morango_celery.metrics.figures import figures
from morango_celery.metrics.names import METRICS, PREFIX, WORKER_IDLE, WORKERS
from morango_celery.models import Batch, Comparison, Run, Worker
from morango_celery.runs import completion
from morango_celery.runs.attempts import attempt_batch
from morango_celery.runs.batching import open_batches
from morango_celery.runs.control import cancel
from morango_celery.runs.execution import execute_batch
from morango_celery.runs.producer import advance, start
from morango_celery.runs.workers import note_worker
from tests.integration.scraping import Samples, only, scraped
from tests.support.factories import fill_store, store_row
from tests.support.processes import ROOT
from tests.support.run_helpers import MISSING, ago, carry_out, edited_unit, new_run, unit

pytestmark = [pytest.mark.django_db, pytest.mark.urls("tests.integration.metrics_urls")]


def of_school(samples: Samples, name: str) -> Samples:
    return {key: value for key, value in only(samples, name).items() if "profile=school" in key}


def test_empty_ledger_has_zeros(client: Client) -> None:
    found = scraped(client)

    # Then nothing has a number, but for the signs of life that there are none of
    idle = only(found, "worker_idle_seconds")
    assert set(idle.values()) <= {math.inf}
    assert set(found.items() - idle.items()) == {(name, 0) for name in found if name not in idle}

    # ... and each metric is there, with each of its labels for each profile
    profiles = len(upstream.profiles())
    for metric in METRICS:
        expected = (profiles if "profile" in metric.labels else 1) * max(len(metric.values), 1)
        name = metric.name.removeprefix(PREFIX) + ("_count" if metric.kind == "histogram" else "")
        of_workers = metric in (WORKERS, WORKER_IDLE)
        assert len(only(found, name)) == (0 if of_workers and runs_in_process() else expected), metric.name


def test_profile_that_no_app_has_any_more_keeps_its_counts(client: Client) -> None:
    Run.objects.create(profile="gone", state="failed")

    assert scraped(client)["runs_ended_total{profile=gone,state=failed}"] == 1
    assert scraped(client)["runs_ended_total{profile=gone,state=completed}"] == 0


@pytest.mark.needs_postgresql
def test_workers_signs_of_life_are_told(client: Client) -> None:
    note_worker("celery@here")
    Worker.objects.create(name="celery@there", seen_at=ago(70))
    Worker.objects.create(name="celery@gone", seen_at=ago(5000))

    found = scraped(client)

    assert found["workers"] == 2
    assert 0 <= found["worker_idle_seconds"] < 60


def test_pending_run_that_waits_for_a_run_or_a_pause_waits_for_no_worker(client: Client) -> None:
    other = new_run(state=Run.State.RUNNING)
    new_run(created_at=ago(500), blocked_by=other)
    new_run(created_at=ago(400), coalesced_into=other)
    new_run(created_at=ago(300), in_process=True)
    new_run(created_at=ago(200), paused=True)

    assert scraped(client)["oldest_pending_run_seconds"] == 0


def test_compared_syncs_and_their_differences_are_counted(client: Client) -> None:
    ended = {"profile": "school", "state": "completed"}
    for number, differences in enumerate((0, 2, 3)):
        session = f"{number:032x}"
        Comparison.objects.create(**ended, transfer_session_id=session, differences=differences)

    found = scraped(client)

    assert (found["comparisons_total{result=same}"], found["comparisons_total{result=different}"]) == (1, 2)
    assert found["comparison_differences_total"] == 5


def test_runs_are_counted_by_state(client: Client) -> None:
    carry_out()
    carry_out()
    completion.fail(new_run().pk, RuntimeError("no"))
    cancel(new_run().pk)
    for state in (Run.State.RUNNING, Run.State.RUNNING, Run.State.PENDING):
        new_run(state=state)
    new_run(last_activity_at=ago(1), created_at=ago(500))
    Run.objects.filter(pk=new_run(state=Run.State.RUNNING).pk).update(last_activity_at=ago(5000))

    found = scraped(client)

    assert of_school(found, "runs_ended_total") == {
        "runs_ended_total{profile=school,state=completed}": 2,
        "runs_ended_total{profile=school,state=failed}": 1,
        "runs_ended_total{profile=school,state=cancelled}": 1,
    }
    assert of_school(found, "runs") == {
        "runs{profile=school,state=pending}": 2,
        "runs{profile=school,state=running}": 3,
    }
    assert found["runs_stalled"] == 1
    assert 500 <= found["oldest_pending_run_seconds"] < 600
    assert found["run_seconds_count{profile=school}"] == 2


def test_records_are_counted_by_outcome(client: Client) -> None:
    # Given records of every outcome
    gone = unit()
    carry_out()
    gone.deleted = gone.dirty_bit = True
    gone.save()
    store_row("lesson", unit=gone)
    unit()
    edited_unit(unit(), "an edit")
    for _ in range(3):
        store_row("lesson", unit_id="ab" * 16)
    run, _ = carry_out()
    assert [getattr(run, name) for name in Run.COUNTS] == [1, 1, 1, 1, 3]

    found = scraped(client)

    assert of_school(found, "records_total") == {
        f"records_total{{outcome={name},profile=school}}": sum(Run.objects.values_list(name, flat=True))
        for name in Run.COUNTS
    }
    dirty = Store.objects.filter(dirty_bit=True)
    in_error = dirty.exclude(deserialization_exception=None).count()
    assert of_school(found, "dirty_records") == {
        "dirty_records{in_error=yes,profile=school}": in_error,
        "dirty_records{in_error=no,profile=school}": dirty.count() - in_error,
    }
    assert in_error == run.failed


def test_records_that_fail_again_are_no_new_failures(client: Client) -> None:
    for _ in range(3):
        store_row("lesson", unit_id=MISSING)
    carry_out()
    carry_out(new_run(retry_errors=True))
    store_row("lesson", unit_id=MISSING)
    carry_out()  # as another sync does: it tries the others again

    found = scraped(client)

    assert found["newly_failed_records_total{profile=school}"] == 4
    assert found["records_total{outcome=failed,profile=school}"] == 3 + 3 + 4


def test_counters_never_go_back_while_a_run_goes_on(client: Client) -> None:
    """Prometheus takes that for a restart, and counts all of it again."""
    run = new_run(state=Run.State.RUNNING, saved=7, failed=3, conflicted=2)
    during = scraped(client)
    assert during["records_total{outcome=saved,profile=school}"] == 7
    assert during["records_total{outcome=failed,profile=school}"] == 0
    assert during["records_total{outcome=conflicted,profile=school}"] == 0

    Run.objects.filter(pk=run.pk).update(failed=1, conflicted=0)  # as another pass does it
    again = scraped(client)
    assert all(again[name] >= value for name, value in only(during, "records_total").items())

    advance(run.pk)
    assert scraped(client)["records_total{outcome=failed,profile=school}"] == 1


def test_batches_and_stages_are_timed_once_they_are_done(
    client: Client, batch_size: Callable[[int], None]
) -> None:
    # Given a run of two stages, of which the second isn't done, and batches that took known times
    batch_size(10)
    fill_store(40)
    run = start(new_run().pk).run
    for batch in list(open_batches(run)):
        attempt_batch(batch.pk, batch.ids_sha256)
    run = advance(run.pk).run
    second = list(open_batches(run))
    attempt_batch(second[0].pk, second[0].ids_sha256)
    now = timezone.now()
    done = Batch.objects.filter(state="done").order_by("stage").values_list("pk", flat=True)
    times = dict(zip(done, (0.2, 4), strict=True))
    for pk, seconds in times.items():
        begun = now - timedelta(seconds=seconds)
        Batch.objects.filter(pk=pk).update(finished_at=now, attempted_at=begun)

    found = scraped(client)

    # Then each is in the bucket of its time and those after it; a stage counts when it is done
    assert found["batches_total{profile=school,state=done}"] == 2
    assert found["batches_open{profile=school}"] == len(second) - 1
    assert found["batch_seconds_sum{profile=school}"] == pytest.approx(4.2)
    assert [
        found[f"batch_seconds_bucket{{le={end},profile=school}}"] for end in ("0.1", "0.25", "2.5", "5.0")
    ] == [
        0,
        1,
        1,
        2,
    ]
    assert (
        found["batch_seconds_bucket{le=+Inf,profile=school}"]
        == found["batch_seconds_count{profile=school}"]
        == 2
    )
    assert found["stage_seconds_count"] == found["stage_seconds_bucket{le=1.0}"] == 1
    assert found["stage_seconds_sum"] == pytest.approx(0.2)

    # ... and what a cancelled run leaves open is nobody's any more
    cancel(run.pk)
    assert scraped(client)["batches_open{profile=school}"] == 0


def test_batch_without_an_attempt_has_no_time(client: Client) -> None:
    """A process that carries its run out itself makes no attempt."""
    fill_store(10)
    run = start(new_run().pk).run
    for batch in list(open_batches(run)):
        execute_batch(batch.pk)
    found = scraped(client)
    assert found["batches_total{profile=school,state=done}"] == 1
    assert found["batch_seconds_count{profile=school}"] == found["stage_seconds_count"] == 0


def test_scrape_costs_eleven_queries(
    client: Client, django_assert_num_queries: Any, batch_size: Callable[[int], None]
) -> None:
    batch_size(10)
    for rows in (0, 60):
        fill_store(rows) if rows else None
        for _ in range(rows // 10):
            start(new_run().pk)
        with django_assert_num_queries(9 if runs_in_process() else 11):
            client.get("/internal/metrics")
    page = (ROOT / "docs" / "reference" / "metrics.md").read_text()
    assert (
        "\nEleven queries in one transaction, however much there is; nine where no workers are needed."
        in page
    )


def test_only_reading_is_allowed(client: Client) -> None:
    assert client.post("/internal/metrics").status_code == 405
    assert "no-cache" in client.get("/internal/metrics").headers["Cache-Control"]


def test_openmetrics_is_spoken_to_those_who_ask_for_it(client: Client) -> None:
    carry_out()
    answer = client.get("/internal/metrics", HTTP_ACCEPT="application/openmetrics-text; version=1.0.0")
    assert answer.headers["Content-Type"].startswith("application/openmetrics-text")
    text = answer.content.decode()
    families = openmetrics.text_string_to_metric_families(text)  # type: ignore[no-untyped-call]  # not ours
    assert {family.name for family in families} == {metric.name.removesuffix("_total") for metric in METRICS}


def test_every_metric_has_its_kind_and_meaning(client: Client) -> None:
    carry_out()
    text = client.get("/internal/metrics").content.decode()
    for metric in METRICS:
        assert f"# HELP {metric.name} {metric.meaning}" in text
        assert f"# TYPE {metric.name} {metric.kind}" in text
    for figure in figures():
        assert len(figure.labels) == len(figure.metric.labels)


def test_registry_of_the_projects_own_takes_the_collector_without_a_query(
    django_assert_num_queries: Any,
) -> None:
    registry = CollectorRegistry(auto_describe=True)
    with django_assert_num_queries(0):
        registry.register(LedgerCollector())
    assert registry.get_sample_value("morango_celery_runs_stalled") == 0


@pytest.mark.urls("worker.urls")
@pytest.mark.parametrize(
    ("token", "given", "status"),
    [
        ("a token", "Bearer a token", 200),
        ("a token", "Bearer another", 404),
        ("a token", "a token", 404),
        ("a token", "", 404),
        ("", "Bearer ", 404),
        (None, "Bearer ", 404),
    ],
)
def test_deployment_shows_them_to_who_knows_the_token(
    client: Client, monkeypatch: pytest.MonkeyPatch, token: str | None, given: str, status: int
) -> None:
    monkeypatch.delenv("METRICS_TOKEN", raising=False)
    if token is not None:
        monkeypatch.setenv("METRICS_TOKEN", token)
    assert client.get("/metrics", HTTP_AUTHORIZATION=given).status_code == status


def test_without_the_library_a_project_is_told_what_to_install() -> None:
    script = (
        "import sys; sys.modules['prometheus_client'] = sys.modules['prometheus_client.core'] = None\n"
        "import django; django.setup()\n"
        "import morango_celery.metrics.urls"
    )
    done = subprocess.run(
        [sys.executable, "-c", script], cwd=ROOT, capture_output=True, text=True, timeout=60
    )
    assert done.returncode == 1
    assert "ImproperlyConfigured: Metrics take prometheus_client" in done.stderr
    assert "morango-celery[metrics]" in done.stderr


def test_every_metric_is_documented() -> None:
    page = (ROOT / "docs" / "reference" / "metrics.md").read_text()
    rows = re.findall(r"^\| `(\w+)` \| (\w+) \| (.*?) \| (.*) \|$", page, re.MULTILINE)
    assert rows == [
        (metric.name, metric.kind, ", ".join(f"`{label}`" for label in metric.labels), metric.meaning)
        for metric in METRICS
    ]
