"""Counters of the metrics never fall: deleted rows leave their share behind."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any

import pytest
from django.db import connection
from django.test import Client

from morango_celery.metrics.names import METRICS
from morango_celery.models import Batch, Comparison, DeletedCounts, Run
from morango_celery.models.counts import buckets_of
from morango_celery.runs import completion
from morango_celery.runs.attempts import attempt_batch
from morango_celery.runs.batching import open_batches
from morango_celery.runs.control import cancel
from morango_celery.runs.producer import advance, start
from morango_celery.runs.pruning import prune_runs
from tests.integration.scraping import Samples, scraped
from tests.support.factories import fill_store, store_row
from tests.support.run_helpers import ago, carry_out, new_run
from tests.support.sessions import until_waiting
from tests.support.waiting import another_connection

pytestmark = [pytest.mark.django_db, pytest.mark.urls("tests.integration.metrics_urls")]

COUNTED = tuple(
    name.removeprefix("morango_celery_")
    for metric in METRICS
    if metric.kind != "gauge"
    for name in metric.sample_names
)


def counted(client: Client) -> Samples:
    """Return the samples of all counters and histograms."""
    return {key: value for key, value in scraped(client).items() if key.partition("{")[0] in COUNTED}


def runs_of_all_kinds(batch_size: Callable[[int], None]) -> None:
    """Write runs with every outcome and state to the ledger, and comparisons."""
    batch_size(10)
    fill_store(20)
    store_row("unit", name=None)
    run = start(new_run().pk).run
    while not run.has_ended:
        for batch in list(open_batches(run)):
            attempt_batch(batch.pk, batch.ids_sha256)
        run = advance(run.pk).run
    Batch.objects.filter(run=run).update(attempted_at=ago(3))
    Run.objects.filter(pk=run.pk).update(created_at=ago(100))
    completion.fail(new_run(saved=3, failed=4).pk, RuntimeError("no"))
    cancel(new_run().pk)
    new_run(state=Run.State.RUNNING, saved=5)
    for number, differences in enumerate((0, 2, 3)):
        columns = {"profile": "school", "state": "completed", "finished_at": ago(10)}
        Comparison.objects.create(transfer_session_id=f"{number:032x}", differences=differences, **columns)


DELETIONS: dict[str, Callable[[], Any]] = {
    "prune_runs": lambda: prune_runs(1e-6),
    "query": lambda: (Run.objects.all().delete(), Comparison.objects.all().delete()),
    "instances": lambda: [row.delete() for row in (*Run.objects.all(), *Comparison.objects.all())],
}


@pytest.mark.parametrize("way", DELETIONS)
def test_deleted_rows_keep_their_share_in_every_counter(
    client: Client, batch_size: Callable[[int], None], way: str
) -> None:
    # Given a ledger with something of each kind
    runs_of_all_kinds(batch_size)
    Run.objects.exclude(finished_at=None).update(finished_at=ago(10), session_notified=True, finalized=True)
    before = counted(client)
    assert before["runs_ended_total{profile=school,state=failed}"] == 1
    assert before["batch_seconds_count{profile=school}"] > 0
    assert before["stage_seconds_count"] > 0
    number = Run.objects.count()

    # When its rows are deleted, twice
    DELETIONS[way]()
    between = counted(client)
    DELETIONS[way]()

    # Then every counter and histogram has the figures that it had
    assert Run.objects.count() < number
    assert between == pytest.approx(before)
    assert counted(client) == pytest.approx(before)


def test_later_runs_count_on_top_of_deleted_ones(client: Client) -> None:
    for _ in range(2):
        carry_out()
        Run.objects.all().delete()
    carry_out()

    found = scraped(client)

    assert found["runs_ended_total{profile=school,state=completed}"] == 3
    assert found["run_seconds_count{profile=school}"] == 3
    assert found["run_seconds_bucket{le=+Inf,profile=school}"] == 3


def test_manager_deletes_no_run_by_accident() -> None:
    assert not hasattr(Run.objects, "delete")
    assert not hasattr(Comparison.objects, "delete")


def test_counts_under_other_buckets_are_in_the_next_higher_one() -> None:
    parts = {"2": 5, "60": 8, "count": 9, "sum": 100}

    assert buckets_of("run_seconds", parts) == (0, 5, 5, 8, 8, 8, 8, 8, 8, 9)


@pytest.mark.needs_postgresql
@pytest.mark.django_db(transaction=True)
def test_row_that_is_deleted_during_a_scrape_is_counted_once(client: Client) -> None:
    # Given two ended runs
    for _ in range(2):
        carry_out()

    # When one is deleted between the scrape's queries of the runs and of the kept counts
    def delete_one() -> None:
        Run.objects.filter(pk=Run.objects.latest("pk").pk).delete()
        connection.close()

    def execute(call: Callable[..., Any], sql: str, parameters: Any, many: bool, context: Any) -> Any:
        if DeletedCounts._meta.db_table in sql:
            other = threading.Thread(target=delete_one)
            other.start()
            other.join()
        return call(sql, parameters, many, context)

    with connection.execute_wrapper(execute):
        during = scraped(client)["runs_ended_total{profile=school,state=completed}"]

    # Then the scrape has counted it once, as has the next one
    assert Run.objects.count() == 1
    assert during == scraped(client)["runs_ended_total{profile=school,state=completed}"] == 2


@pytest.mark.needs_postgresql
@pytest.mark.django_db(transaction=True)
def test_deletion_locks_a_batch_before_its_run_as_workers_do(batch_size: Callable[[int], None]) -> None:
    # Given a batch in execution: a worker holds its row, and will count it in its run
    fill_store(10)
    run = start(new_run().pk).run
    batch = Batch.objects.get(run=run)

    def delete() -> None:
        Run.objects.filter(pk=run.pk).delete()
        connection.close()

    deletion = threading.Thread(target=delete)
    with another_connection() as worker, worker.cursor() as cursor:
        cursor.execute("SELECT 1 FROM morango_celery_batch WHERE id = %s FOR UPDATE", [batch.pk])

        # When the run is deleted meanwhile, then the deletion waits without holding the run
        deletion.start()
        until_waiting()
        cursor.execute("SELECT 1 FROM morango_celery_run WHERE id = %s FOR UPDATE NOWAIT", [run.pk])
        worker.rollback()
    deletion.join()
    assert not Run.objects.exists()
