"""Ids of batches that a run leaves undone: emptied when it ends, or by the next process that finds them."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from django.db import connection, transaction
from django.test.utils import CaptureQueriesContext

from morango_celery import tasks
from morango_celery.errors import FatalError
from morango_celery.models import Batch, Run
from morango_celery.runs import completion, control
from morango_celery.runs.attempts import attempt_batch
from morango_celery.runs.batching import open_batches
from morango_celery.runs.producer import start
from morango_celery.runs.recovery import IN_PROCESS_STALLED_FACTOR, recover
from tests.support import factories
from tests.support.concurrency import together
from tests.support.run_helpers import RecordingDispatcher, ago, new_run, unit

pytestmark = pytest.mark.django_db(transaction=True)


def payloads(run: Run) -> list[str]:
    return list(Batch.objects.filter(run=run).order_by("pk").values_list("ids_json", flat=True))


@pytest.fixture
def runs(batch_size: Callable[[int], None]) -> tuple[Run, Run]:
    """Two runs of three batches each, of which nothing is done."""
    batch_size(1)
    for _ in range(3):
        unit()
    one, other = (start(new_run().pk).run for _ in range(2))
    return one, other


def cancel(run: Run) -> None:
    control.cancel(run.pk)


def fail(run: Run) -> None:
    completion.fail(run.pk, ValueError("No."))


def abandon(run: Run) -> None:
    Run.objects.filter(pk=run.pk).update(
        in_process=True, last_activity_at=ago(IN_PROCESS_STALLED_FACTOR * 900 + 60)
    )
    recover(RecordingDispatcher())


@pytest.mark.parametrize("end", [cancel, fail, abandon])
def test_run_that_ends_empties_the_ids_of_its_batches_and_no_others(
    runs: tuple[Run, Run], end: Callable[[Run], None]
) -> None:
    ended, live = runs
    before = payloads(live)

    end(ended)

    ended.refresh_from_db()
    assert ended.has_ended
    assert payloads(ended) == ["", "", ""]
    assert payloads(live) == before
    assert all(before)
    for batch in Batch.objects.filter(run=ended):
        assert tasks.deserialize_batch(batch.pk, batch.ids_sha256) == {}


def test_emptying_takes_one_statement_for_all_batches(runs: tuple[Run, Run]) -> None:
    with CaptureQueriesContext(connection) as queries:
        control.cancel(runs[0].pk)
    assert sum('UPDATE "morango_celery_batch"' in query["sql"] for query in queries) == 1


@pytest.mark.needs_postgresql
class TestBatchInExecution:
    """A batch whose row is locked while its run is cancelled."""

    @pytest.fixture
    def left(self, runs: tuple[Run, Run]) -> Batch:
        """Return the batch whose executor didn't get to its end."""
        batch = next(open_batches(runs[0]))
        with transaction.atomic():
            Batch.objects.select_for_update().get(pk=batch.pk)
            together([lambda: control.cancel(runs[0].pk)])
        ids = Batch.objects.filter(run=runs[0]).exclude(ids_json="")
        assert [found.pk for found in ids] == [batch.pk]
        return batch

    def test_next_message_empties_a_batch_left_over(self, left: Batch) -> None:
        assert attempt_batch(left.pk, left.ids_sha256).result is None
        assert payloads(left.run) == ["", "", ""]

    def test_next_recovery_empties_a_batch_left_over(self, left: Batch, runs: tuple[Run, Run]) -> None:
        recover(RecordingDispatcher())
        assert payloads(left.run) == ["", "", ""]
        assert all(payloads(runs[1]))


def test_ids_go_with_their_batch_and_with_their_run() -> None:
    factories.fill_store(10)
    run = start(new_run().pk).run
    batches = list(open_batches(run))
    tasks.deserialize_batch(batches[0].pk, batches[0].ids_sha256)
    assert Batch.objects.get(pk=batches[0].pk).store_ids == []

    Run.objects.all().delete()
    assert not Batch.objects.exists()


def test_ids_that_were_changed_in_the_ledger_fail_the_run_and_deserialize_nothing() -> None:
    factories.fill_store(10)
    run = start(new_run().pk).run
    batch = next(open_batches(run))
    Batch.objects.filter(pk=batch.pk).update(ids_json=batch.ids_json.replace('", "', '","'))

    with pytest.raises(FatalError, match="not those that were handed out"):
        tasks.deserialize_batch(batch.pk, batch.ids_sha256)

    run.refresh_from_db()
    assert run.state == Run.State.FAILED
    assert Batch.objects.get(pk=batch.pk).saved == 0
