"""Order of the batches with records of exclusive models: one at a time, among all runs.

A worker doesn't wait while another one executes such a batch. It notes that its own batch has no message, and
takes another message. The worker of the other batch sends this one afterwards; if that worker is killed,
recovery does.
"""

from __future__ import annotations

from dataclasses import replace

from django.db.models import F, QuerySet

from morango_celery.deserialization.locks import is_locked_exclusively
from morango_celery.models import Batch, Run
from morango_celery.runs.execution import Execution


def postpone(attempt: QuerySet[Batch], batch_id: int) -> Execution:
    """Uncount the attempt at a batch while another one is executed, and let it wait without a message.

    :param attempt: a query for the batch, empty if another message's attempt was begun since
    :returns: an execution; it has the batch to be sent, if the other one has ended already
    """
    attempt.update(attempts=F("attempts") - 1, attempted_by="", sent_at=None, overdue_at=None)
    batches_to_send = () if is_locked_exclusively() else (batch_id,)
    return Execution(None, None, stage_is_done=False, batches_to_send=batches_to_send)


def pass_on(execution: Execution) -> Execution:
    """Return the execution of a batch, with the exclusive batch that has waited longest, to be sent now.

    Cost: one query, if the batch had records of exclusive models.
    """
    if execution.result is None or not execution.result.had_exclusive_models:
        return execution
    waiting = Batch.objects.filter(
        Batch.known(),
        Batch.may_begin(),
        state=Batch.State.OPEN,
        overdue_at=None,
        attempted_at__isnull=False,
        run__state=Run.State.RUNNING,
        run__in_process=False,
        run__paused=False,
    )
    longest = waiting.order_by("attempted_at").values_list("pk", flat=True)[:1]
    return replace(execution, batches_to_send=tuple(dict.fromkeys((*longest, *execution.batches_to_send))))
