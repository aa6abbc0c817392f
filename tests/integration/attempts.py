"""Attempts at batches, made as a worker makes them, in this process."""

from __future__ import annotations

from typing import Any

from morango_celery.models import Batch, Run
from morango_celery.runs import completion
from morango_celery.runs.attempts import attempt_batch
from morango_celery.runs.batching import open_batches
from morango_celery.runs.execution import Execution
from morango_celery.runs.producer import advance, start
from tests.support.run_helpers import new_run

POISON = "morango_celery.errors.PoisonRecordError"


def attempt(batch: Batch | int) -> Execution:
    """Execute a batch as a worker that gets a message for it."""
    found = Batch.objects.get(pk=batch if isinstance(batch, int) else batch.pk)
    return attempt_batch(found.pk, found.ids_sha256)


def still_open(run: Run) -> list[Batch]:
    """Return the open work of a run, parts that have to wait for others included."""
    return list(run.batches.filter(state=Batch.State.OPEN).order_by("pk"))


def work_off(run: Run, *, last_first: bool = False) -> Run:
    """Be the worker for all messages until the run has ended.

    :param last_first: whether the messages of a stage come in the opposite order
    """
    while True:
        messages = [batch.pk for batch in still_open(run)]
        while messages:
            execution = attempt(messages.pop(-1 if last_first else 0))
            messages.extend(execution.batches_to_send)
            waiting = {batch.pk for batch in still_open(run)}
            assert set(execution.batches_to_send) <= waiting
            assert execution.stage_is_done is not bool(waiting)
        progress = advance(run.pk)
        if progress.ended:
            completion.finalize(progress.run)
            return progress.run


def used_up(batch: Batch) -> Batch:
    """Return the batch after workers have died of it."""
    Batch.objects.filter(pk=batch.pk).update(attempts=3)
    return batch


def one_batch(**options: Any) -> Batch:
    (batch,) = open_batches(start(new_run(**options).pk).run)
    return batch
