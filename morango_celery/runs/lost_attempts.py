"""Attempts at batches that nobody saw end: the reason is noted in the ledger and logged, once for each."""

from __future__ import annotations

from django.db import transaction
from django.db.models import Case, Q, TextField, Value, When

from morango_celery import clock
from morango_celery.deserialization.locks import take_write_lock
from morango_celery.models import Batch
from morango_celery.runs.batch_log import log_attempt_that_ended
from morango_celery.runs.history import ended
from morango_celery.runs.message import Message
from morango_celery.runs.overdue import MOMENT_SECONDS, not_executed

WORKER_LOST = "its worker was killed, crashed, ran out of memory or exceeded the hard time limit"
DATABASE_LOST = "its worker lost the database"


def just_begun(message_id: str) -> Q:
    """Return the condition that another message's attempt was begun a moment ago.

    Its worker may be about to lock the batch.
    """
    return Q(attempted_at__gt=clock.now(-MOMENT_SECONDS)) & ~Q(attempted_by__in=("", message_id))


def none_is_lost() -> Q:
    """Return the condition that each counted attempt at a batch has its reason noted."""
    return Q(attempts=0) | Q(attempted_by="")


def note_lost_attempt(batch_id: int, message: Message) -> bool:
    """Note and log why the last attempt at an open batch came to no result, if nobody executes it.

    :returns: False if there is nothing to note
    Cost: two statements, and one for the line of the log. None of them is needed unless an attempt was lost.
    Twice, and at the same time: safe; the second one finds it noted.
    """
    reasons = []
    if message.retries and not message.is_redelivered:  # its last worker lived, and asked for this retry
        reasons.append(When(attempted_by=message.id, then=Value(DATABASE_LOST)))
    reason = Case(*reasons, default=Value(WORKER_LOST), output_field=TextField())
    lost = Batch.objects.filter(~just_begun(message.id), not_executed(batch_id), pk=batch_id)
    with transaction.atomic():
        take_write_lock()
        noted = lost.filter(~none_is_lost(), state=Batch.State.OPEN).update(
            last_error=reason, **ended(reason)
        )
    if noted:
        columns = ("run_id", "stage", "number", "attempts", "last_error")
        batch = Batch.objects.only(*columns).get(pk=batch_id)
        log_attempt_that_ended(batch, batch.last_error)
    return noted == 1
