"""``manage.py prune_payloads``, and what it never removes."""

from __future__ import annotations

from io import StringIO
from typing import Any

import pytest
from django.core.management import call_command

from morango_celery import tasks
from morango_celery.errors import FatalError
from morango_celery.models import Batch, Run
from morango_celery.payloads import payload_store
from morango_celery.payloads.models import Payload
from morango_celery.runs.producer import open_batches, start
from tests import factories
from tests.integration.ledger import new_run

pytestmark = pytest.mark.django_db(transaction=True)


@pytest.fixture(autouse=True)
def _small_batches(configure: Any) -> None:
    configure(BATCH_SIZE_RECORDS=10)


def prune(*arguments: str) -> str:
    output = StringIO()
    call_command("prune_payloads", *arguments, stdout=output)
    return output.getvalue().strip()


def test_what_is_over_is_removed_and_counted() -> None:
    store = payload_store()
    over, needed = store.put("over", 0), store.put("needed")

    assert prune() == "1 payloads removed, 7 bytes."
    assert set(Payload.objects.values_list("key", flat=True)) == {needed.sha256} != {over.sha256}
    assert prune() == "0 payloads removed, 0 bytes."


def test_more_is_removed_than_fits_in_a_statement(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("morango_celery.payloads.database.ROWS_PER_DELETE", 3)
    for number in range(10):
        payload_store().put(number, 0)

    assert prune().startswith("10 payloads removed, 20 bytes")


def test_one_value_can_be_dropped() -> None:
    store = payload_store()
    dropped, other = store.put("one"), store.put("other")

    assert prune("--drop", dropped.sha256) == "1 parts dropped."
    assert [payload.key for payload in Payload.objects.all()] == [other.sha256]
    assert str(Payload.objects.get()) == f"payload {other.sha256}"


def test_ids_go_with_their_batch_and_with_their_run() -> None:
    factories.fill_store(10)
    run = start(new_run().pk).run
    batches = list(open_batches(run))
    tasks.deserialize_batch(batches[0].pk, batches[0].reference)
    assert Batch.objects.get(pk=batches[0].pk).store_ids == []

    Run.objects.all().delete()
    assert (Batch.objects.count(), Payload.objects.count()) == (0, 0)


def test_ids_that_were_changed_in_the_ledger_fail_the_run_and_deserialize_nothing() -> None:
    factories.fill_store(10)
    run = start(new_run().pk).run
    batch = next(open_batches(run))
    Batch.objects.filter(pk=batch.pk).update(payload=batch.payload.replace('", "', '","'))

    with pytest.raises(FatalError, match="not those that were handed out"):
        tasks.deserialize_batch(batch.pk, batch.reference)

    run.refresh_from_db()
    assert run.state == Run.State.FAILED
    assert Batch.objects.get(pk=batch.pk).saved == 0
