"""Attempts at batches: each is counted before it begins, because it may end its worker.

A record that ends its worker (crashes it, takes all its memory, never returns) takes the other records of its
batch along, again and again. So a batch that has used up its attempts is split. The parts without the record
are saved, one after another as they were in the batch. A record that stands alone is given up.
"""

from __future__ import annotations

import contextlib
from math import ceil

from django.db import DatabaseError, InterfaceError, connection, transaction
from django.db.models import F, Max
from morango.models.core import Store

from morango_celery.db.errors import is_transient
from morango_celery.deserialization import BatchResult
from morango_celery.deserialization.locks import take_write_lock
from morango_celery.errors import (
    ExclusiveModelsTakenError,
    PoisonRecordError,
    SoftTimeLimitReached,
    TransientError,
)
from morango_celery.models import Batch, Run
from morango_celery.runs import exclusive
from morango_celery.runs.batch_log import (
    log_attempt_that_ended,
    log_quarantined_on_commit,
    log_split_on_commit,
)
from morango_celery.runs.beginning import attempt_of, begin_attempt, has_attempts_left
from morango_celery.runs.execution import Execution, execute_batch, lock_open_batch, next_part, record_result
from morango_celery.runs.history import STOPPED, ended
from morango_celery.runs.lost_attempts import WORKER_LOST
from morango_celery.runs.message import NOBODYS, Message
from morango_celery.runs.outages import DatabaseTimes
from morango_celery.runs.overdue import hold, not_executed, note_retry, when_begun
from morango_celery.upstream import exception_path

SPLIT_INTO = 10
"""Number of parts that a batch is split into, if it has as many records."""

NOTHING = Execution(None, None, stage_is_done=False)

OUT_OF_TIME = "it took longer than the worker's time limit"
OUT_OF_MEMORY = "there was not enough memory"


def attempt_batch(
    batch_id: int, ids_sha256: str, message: Message = NOBODYS, *, ends_run: bool = False
) -> Execution:
    """Execute a batch; or split it, or give its record up, if it has ended too many workers.

    One record that ends every worker which deserializes it, in a batch of n records, costs at most
    ``2 * MAX_ATTEMPTS + ceil(log10(n)) - 1`` workers, or `MAX_ATTEMPTS` if n is 1. That is `MAX_ATTEMPTS` for
    the batch, one for each smaller batch on the way down, and `MAX_ATTEMPTS` for the record: 9 for 2,000
    records (in batches of 2,000, 200, 20, 2 and 1: 3 + 1 + 1 + 1 + 3) with the default settings. Several such
    records cost that much each at most. One that failed at first because others
    were missing may cost that again, in a later pass.

    Time and memory that run out in a living worker cost no worker. A batch is split after the first time,
    because smaller batches need less of both.

    While a pause holds the run, nothing is done. The batch then waits without a message.

    It doesn't wait while another batch saves records of exclusive models: it is postponed (`exclusive`).

    An attempt that ended because the database was away, or asked to try again, is uncounted, if the database
    is there to note it. One that the database cancelled, or had no memory for, stays counted.

    :param ends_run: as for `execute_batch`
    :raises InvalidMessageError: the ids are not this batch's; nothing was done
    :raises TransientError: the worker that had this message before is lost, but its session still holds the
        batch's lock
    :raises OperationalError, InterfaceError: the database went away; nothing was written
    Cost: one short transaction more than `execute_batch`, without waiting for a disk; some more after a
    worker that was lost.
    Twice, and at the same time: safe; the second one does nothing, and doesn't wait. If the first one's
    worker is lost, recovery finds a batch that nobody holds.
    """
    begun = begin_attempt(batch_id, ids_sha256, message)
    if begun is None:
        return NOTHING
    if not begun:
        execution = _split_or_give_up(batch_id, ids_sha256)
        if execution is NOTHING and message.id and attempt_of(batch_id, message.id).exists():
            raise TransientError("A session of a worker that was lost still executes the batch.")
        return execution
    return attempt_begun(batch_id, ids_sha256, message, ends_run=ends_run)


def attempt_begun(
    batch_id: int, ids_sha256: str, message: Message = NOBODYS, *, ends_run: bool = False
) -> Execution:
    """Execute a batch as `attempt_batch` does, once the message's attempt at it is counted."""
    times = DatabaseTimes(message.retries)
    try:
        with connection.execute_wrapper(times):
            execution = execute_batch(batch_id, ids_sha256, message.id, waits=False, ends_run=ends_run)
            if execution.is_left_to_others:
                _uncount(batch_id, message)
            return exclusive.pass_on(execution)
    except ExclusiveModelsTakenError:
        return exclusive.postpone(attempt_of(batch_id, message.id), batch_id)
    except SoftTimeLimitReached:
        last_error = OUT_OF_TIME
    except MemoryError:
        last_error = OUT_OF_MEMORY
    except (DatabaseError, InterfaceError) as error:
        if is_transient(error):
            _uncount_after_outage(batch_id, message, times, error)
        raise
    # Out here the traceback is gone, and with it the objects that its frames kept alive.
    if not connection.in_atomic_block:
        connection.close()  # the time may have been up in the middle of Django's bookkeeping
    noted = attempt_of(batch_id, message.id).update(suspect=True, last_error=last_error, **ended(last_error))
    _log_reason(batch_id, last_error if noted else "")
    return Execution(None, None, stage_is_done=False, batches_to_send=(batch_id,))


def _split_or_give_up(batch_id: int, ids_sha256: str) -> Execution:
    """Split a batch that can't be attempted, or give its record up, unless somebody executes it."""
    with transaction.atomic():
        is_executed = not Batch.objects.filter(not_executed(batch_id), pk=batch_id).exists()
    return NOTHING if is_executed else _split_or_give_up_idle(batch_id, ids_sha256)


@transaction.atomic
def _split_or_give_up_idle(batch_id: int, ids_sha256: str) -> Execution:
    batch = lock_open_batch(batch_id, ids_sha256)
    if isinstance(batch, Execution):
        return batch
    if has_attempts_left(batch):  # another worker has uncounted one meanwhile
        return Execution(batch.run_id, None, stage_is_done=False, batches_to_send=(batch.pk,))
    return _split(batch) if batch.size > 1 else _give_up(batch)


def _split(batch: Batch) -> Execution:
    run = Run.locked(batch.run_id)  # this also keeps other batches from being split at the same time
    ids = batch.store_ids
    size = ceil(len(ids) / SPLIT_INTO)
    last: int = run.batches.filter(stage=batch.stage).aggregate(last=Max("number"))["last"]
    parts = [
        Batch.of(
            run,
            last + number,
            ids[start : start + size],
            suspect=True,
            split_from=batch.number if batch.split_from is None else batch.split_from,
            offset=batch.offset + start,
            **when_begun(),
        )
        for number, start in enumerate(range(0, len(ids), size), start=1)
    ]
    reason = batch.last_error or WORKER_LOST
    batch.close(Batch.State.SPLIT, last_error=reason)
    log_split_on_commit(batch, len(parts), reason)
    Batch.objects.bulk_create(parts)
    Run.objects.filter(pk=run.pk).update(
        open_batches=F("open_batches") + len(parts) - 1, stage_batches=F("stage_batches") + len(parts)
    )
    return Execution(run.pk, None, stage_is_done=False, batches_to_send=next_part(batch))


def _give_up(batch: Batch) -> Execution:
    error = PoisonRecordError(
        f"Deserializing this record was tried {batch.attempts} times and never came to an end: "
        f"{batch.last_error or WORKER_LOST}. The worker's log says more. It is quarantined: no run tries it "
        "again until it changes. Once the cause is mended, or the worker has what it needs, `manage.py "
        "deserialize --retry-errors` does so."
    )
    record = Store.objects.filter(pk__in=batch.store_ids, profile=batch.run.profile, dirty_bit=True)
    failed = record.update(deserialization_error=str(error), deserialization_exception=exception_path(error))
    if failed:
        ((store_id, model_name),) = record.values_list("pk", "model_name")
        log_quarantined_on_commit(batch, store_id, model_name, error)
    return record_result(batch, BatchResult(failed=failed))


def uncount_after_signal(batch_id: int, message: Message) -> None:
    """Uncount the attempt of a message after a signal has ended its process, which is no fault of the batch.

    Recovery sends the batch again, at its next look; the broker may do so later.
    """
    attempt = attempt_of(batch_id, message.id)
    attempt.update(attempts=F("attempts") - 1, overdue_at=None, **ended(STOPPED))


def _uncount(batch_id: int, message: Message) -> None:
    """Uncount the attempt at a batch that only workers of a newer version know how to execute."""
    attempt_of(batch_id, message.id).update(attempts=F("attempts") - 1, attempted_by="", overdue_at=None)


def expect_retry(batch_id: int, message: Message, seconds: float) -> None:
    """Note that a message retries the batch in some seconds."""
    open_batch = Batch.objects.filter(pk=batch_id, state=Batch.State.OPEN)
    note_retry(open_batch.filter(attempted_by__in=("", message.id)), seconds)


def _outage(error: DatabaseError | InterfaceError) -> str:
    return f"the database ended it: {str(error).strip()}"


def _uncount_after_outage(
    batch_id: int, message: Message, times: DatabaseTimes, error: DatabaseError | InterfaceError
) -> None:
    """Uncount an attempt that the database ended, unless the attempt itself was the reason.

    The attempt stays counted if the database isn't there to note it, or takes long to notice that this
    attempt's session is gone.
    """
    batch = attempt_of(batch_id, message.id)
    with contextlib.suppress(DatabaseError, InterfaceError):
        if not connection.in_atomic_block:
            connection.close_if_unusable_or_obsolete()
        last_error = times.reason_to_count(error)
        with transaction.atomic():
            take_write_lock()
            if not hold(batch):
                return
            if last_error:
                batch.update(last_error=last_error, **ended(last_error))
            else:
                batch.update(attempts=F("attempts") - 1, **ended(_outage(error)))
        _log_reason(batch_id, last_error)


def _log_reason(batch_id: int, reason: str) -> None:
    """Log why an attempt that counts came to no result; nothing without a reason. Cost: one query."""
    columns = Batch.objects.only("run_id", "stage", "number", "attempts")
    if reason and (batch := columns.filter(pk=batch_id).first()):
        log_attempt_that_ended(batch, reason)
