"""Rows of these tests: records that wait, and batches of runs of every size."""

from __future__ import annotations

from morango.models import Store
from morango.models.certificates import Filter

from morango_celery.models import Batch
from morango_celery.runs.batching import open_batches
from morango_celery.runs.producer import create_run, start
from tests.support import factories
from worker.school.models import PROFILE

LIMIT_SECONDS = 45
"""Time within which a sender gives up, on a machine under load; without limits it would be no time at all."""


def open_batch(records: int) -> Batch:
    """Return the one batch of a run that has handed out so many records, as it says."""
    unit = factories.store_row("unit", school_id=f"{records:032x}")
    run = create_run(PROFILE, Filter(unit.partition), serialize_first=False, session_notified=True)
    (batch,) = open_batches(start(run.pk).run)
    batch.run.records = records
    batch.run.save()
    return batch


def first(model_name: str) -> str:
    return str(Store.objects.filter(model_name=model_name, dirty_bit=True).earliest("id").id)
