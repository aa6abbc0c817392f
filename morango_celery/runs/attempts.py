"""Execution by a worker that may not live to tell: attempts are counted first, and come to an end.

A record that ends its worker (crashes it, takes all its memory, never returns) takes the other
records of its batch along, again and again. So a batch that has used up its attempts is split, and
the parts that don't hold the record are saved, one after another as they were in the batch; a record
that stands alone is given up.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Sequence
from math import ceil
from typing import Any

from django.db import DatabaseError, InterfaceError, connection, transaction
from django.db.models import F, Max, Q, QuerySet
from django.utils import timezone
from morango.models.core import Store

from morango_celery.conf import settings
from morango_celery.db.errors import is_transient, may_be_the_records_fault
from morango_celery.deserialize import BatchResult
from morango_celery.deserialize.sql import commit_lazily, take_write_lock
from morango_celery.errors import PoisonRecordError, TimeIsUp
from morango_celery.models import Batch, Run, hash_of_ids
from morango_celery.payloads import Reference
from morango_celery.runs.execute import Execution, account, execute_batch, next_part, take
from morango_celery.upstream import deserialization_log, exception_path

PARTS = 10
"""How many batches one is split into, if it has as many records."""

TWIN_SECONDS = 1.0
"""How long a worker needs at most from counting an attempt to locking the batch, or from losing that lock to
taking the attempt back."""

OUT_OF_TIME = "it took longer than the worker's time limit"
OUT_OF_MEMORY = "there was not enough memory"


def attempt_batch(batch_id: int, store_ids: Sequence[str] | Reference) -> Execution:
    """Execute a batch, unless that has ended too many workers: then split it, or give its record up.

    One record that ends every worker which deserializes it, in a batch of n records, costs at most
    ``2 * MAX_ATTEMPTS + ceil(log10(n)) - 1`` workers, or `MAX_ATTEMPTS` if it stands alone:
    `MAX_ATTEMPTS` for the batch, one for each smaller batch on the way down, `MAX_ATTEMPTS` for the
    record. With the defaults that is 8. Several such records cost that much each at most; one that
    fails for lack of others at first may cost it once more, in the pass in which they are there.

    Time and memory that run out in a living worker cost no worker, and a batch is split after the
    first time: less at once is what helps.

    An attempt that ended because the database was away, or asked to try again, doesn't count, if the
    database is there to hear it. One that it cancelled or had no memory for does.

    :raises RefusedMessageError: the ids are not this batch's; nothing was done
    :raises OperationalError, InterfaceError: the database went away; nothing was written
    Cost: one short transaction more than `execute_batch`, which waits for no disk.
    Twice, and at the same time: safe; the second one waits, and finds the batch done.
    """
    if not _begin(batch_id, store_ids):
        _let_twin_begin(batch_id)
        _let_twin_end(batch_id)
        return _settle(batch_id, store_ids)
    try:
        return execute_batch(batch_id, store_ids)
    except TimeIsUp:
        trouble = OUT_OF_TIME
    except MemoryError:
        trouble = OUT_OF_MEMORY
    except (DatabaseError, InterfaceError) as error:
        if is_transient(error):
            _forgive(batch_id, error)
        raise
    # Out here the traceback is gone, and with it what its frames held on to.
    if not connection.in_atomic_block:
        connection.close()  # the time may have been up in the middle of Django's bookkeeping
    Batch.objects.filter(pk=batch_id).update(suspect=True, trouble=trouble)
    return Execution(None, None, stage_is_done=False, to_send=(batch_id,))


def _begin(batch_id: int, store_ids: Sequence[str] | Reference) -> bool:
    """Count an attempt, if the batch is open and has one left. Waits while another worker executes it."""
    hurried = Q(suspect=True, size__gt=1)
    left = Q(hurried, attempts=0) | Q(~hurried, attempts__lt=settings.MAX_ATTEMPTS)
    batch = Batch.objects.filter(
        left, ~Batch.has_to_wait(), pk=batch_id, state=Batch.State.OPEN, content_hash=hash_of_ids(store_ids)
    )
    with transaction.atomic():
        take_write_lock()
        commit_lazily()
        begun = batch.update(attempts=F("attempts") + 1, attempted_at=timezone.now(), trouble="")
    return begun == 1


def _has_attempts_left(batch: Batch) -> bool:
    return batch.attempts < (1 if batch.suspect and batch.size > 1 else settings.MAX_ATTEMPTS)


def _let_twin_begin(batch_id: int) -> None:
    """The last attempt may be another worker's, who has counted it and is about to lock the batch."""
    batch = Batch.objects.filter(pk=batch_id, state=Batch.State.OPEN).only("attempted_at").first()
    if batch is not None and batch.attempted_at is not None:
        age = (timezone.now() - batch.attempted_at).total_seconds()
        time.sleep(min(max(TWIN_SECONDS - age, 0), TWIN_SECONDS))


def _let_twin_end(batch_id: int) -> None:
    """The last attempt may be another worker's who executes the batch, and then may take the attempt back."""
    row = Batch.objects.filter(pk=batch_id, state=Batch.State.OPEN).values_list("pk")
    while row.exists() and not _locks(row.select_for_update(skip_locked=True)):
        if _locks(row.select_for_update()):  # once the other has let go of it
            time.sleep(TWIN_SECONDS)


@transaction.atomic
def _locks(row: QuerySet[Any]) -> bool:
    """Whether it is there, for this transaction to lock; the lock isn't kept."""
    return bool(row)


@transaction.atomic
def _settle(batch_id: int, store_ids: Sequence[str] | Reference) -> Execution:
    batch = take(batch_id, store_ids)
    if isinstance(batch, Execution):
        return batch
    if _has_attempts_left(batch):  # another worker has forgiven one meanwhile
        return Execution(batch.run_id, None, stage_is_done=False, to_send=(batch.pk,))
    return _split(batch) if batch.size > 1 else _give_up(batch)


def _split(batch: Batch) -> Execution:
    run = Run.locked(batch.run_id)  # also, no other batch is split at the same time
    ids = batch.store_ids
    size = ceil(len(ids) / PARTS)
    last: int = run.batches.filter(stage=batch.stage).aggregate(last=Max("number"))["last"]
    parts = [
        Batch.of(
            run,
            last + number,
            ids[start : start + size],
            suspect=True,
            part_of=batch.number if batch.part_of is None else batch.part_of,
            place=batch.place + start,
        )
        for number, start in enumerate(range(0, len(ids), size), start=1)
    ]
    batch.close(Batch.State.SPLIT)
    Batch.objects.bulk_create(parts)
    Run.objects.filter(pk=run.pk).update(
        open_batches=F("open_batches") + len(parts) - 1, stage_batches=F("stage_batches") + len(parts)
    )
    return Execution(run.pk, None, stage_is_done=False, to_send=next_part(batch))


def _give_up(batch: Batch) -> Execution:
    error = PoisonRecordError(
        f"Deserializing this record was tried {batch.attempts} times and never came to an end: "
        + (
            f"{batch.trouble}. "
            if batch.trouble
            else "its worker was killed, crashed, ran out of memory or exceeded the hard time limit. "
        )
        + "The worker's log says more. It is quarantined: no run tries it again until it changes. Once the "
        "cause is mended, or the worker has what it needs, `manage.py deserialize --retry-errors` does so."
    )
    record = Store.objects.filter(pk__in=batch.store_ids, profile=batch.run.profile, dirty_bit=True)
    failed = record.update(deserialization_error=str(error), deserialization_exception=exception_path(error))
    if failed:
        deserialization_log.warning(
            "Failed to deserialize Store record %s: %s", ", ".join(batch.store_ids), error
        )
    return account(batch, BatchResult(failed=failed))


def _forgive(batch_id: int, error: DatabaseError | InterfaceError) -> None:
    """Take back an attempt that the database ended. If it isn't there to hear it, the attempt counts."""
    batch = Batch.objects.filter(pk=batch_id, state=Batch.State.OPEN, attempts__gt=0)
    with contextlib.suppress(DatabaseError, InterfaceError):
        if not connection.in_atomic_block:
            connection.close_if_unusable_or_obsolete()
        if may_be_the_records_fault(error):
            batch.update(trouble=f"the database said: {str(error).strip()}")
        else:
            batch.update(attempts=F("attempts") - 1)
