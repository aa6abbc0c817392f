"""A worker's answers to queries about tasks."""

from __future__ import annotations

import pytest
from django.db import transaction
from pytest_celery import CeleryTestSetup

from morango_celery.models import Batch
from morango_celery.runs.batching import open_batches
from morango_celery.runs.overdue import note_sent
from morango_celery.runs.producer import create_run, start
from tests.support import factories
from tests.support.processes import PATIENCE_SECONDS
from worker.school.models import PROFILE

pytestmark = [pytest.mark.django_db(transaction=True), pytest.mark.needs_postgresql]


def test_result_of_a_batch_comes_through_the_backend(celery_setup: CeleryTestSetup) -> None:
    # Given a batch of sound records and a broken one
    factories.fill_store(20)
    factories.store_row("unit", name=None)
    with transaction.atomic():  # never unsent: the worker, which looks for such batches, would be first
        run = start(create_run(PROFILE, None, serialize_first=False, session_notified=True).pk).run
        note_sent(Batch.objects.all())
    (batch,) = open_batches(run)

    # When its task is sent by somebody who wants to know what comes of it
    result = celery_setup.app.send_task(
        "morango_celery.deserialize_batch", [batch.pk, batch.ids_sha256], ignore_result=False
    )

    # Then the worker says so
    counts = {"saved": 20, "deleted": 0, "propagated": 0, "conflicted": 0, "failed": 1}
    assert result.get(timeout=PATIENCE_SECONDS) == counts
