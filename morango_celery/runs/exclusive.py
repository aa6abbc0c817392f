"""FairPriorities of the batches that have records of exclusive models, among all runs.

One of them is executed at a time. A worker doesn't wait for another's: it notes that the batch has no
message, and takes something else. Whoever executes the other one sends it afterwards, and if that worker is
killed, the next sweep does.
"""

from __future__ import annotations

from dataclasses import replace

from django.db.models import F, QuerySet

from morango_celery.deserialization.sql import is_locked_exclusively
from morango_celery.models import Batch, Run
from morango_celery.runs.execution import Execution


def step_back(attempt: QuerySet[Batch], batch_id: int) -> Execution:
    """Take back the attempt at a batch whose turn it isn't, and let it wait without a message.

    :param attempt: the batch, unless another message's attempt was begun since
    :returns: the batch itself is to be sent, if the other one has ended before it could see this note
    """
    attempt.update(attempts=F("attempts") - 1, attempted_by="", sent_at=None, overdue_at=None)
    batches_to_send = () if is_locked_exclusively() else (batch_id,)
    return Execution(None, None, stage_is_done=False, batches_to_send=batches_to_send)


def pass_on(execution: Execution) -> Execution:
    """Return what came of a batch, with the one that has been waiting longest for its end to be sent first.

    Cost: one query, if the batch had records of exclusive models.
    """
    if execution.result is None or not execution.result.had_exclusive_models:
        return execution
    waiting = Batch.objects.filter(
        ~Batch.has_to_wait(),
        state=Batch.State.OPEN,
        overdue_at=None,
        attempted_at__isnull=False,
        run__state=Run.State.RUNNING,
        run__in_process=False,
    )
    longest = waiting.order_by("attempted_at").values_list("pk", flat=True)[:1]
    return replace(execution, batches_to_send=tuple(dict.fromkeys((*longest, *execution.batches_to_send))))
