"""Execution of one batch: app rows, Store rows, errors, counters and ledger in one transaction."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import partial

from django.db import IntegrityError, connection, transaction
from django.db.models import F

from morango_celery import clock
from morango_celery.conf import settings
from morango_celery.db.dialect import dialect
from morango_celery.db.prepared import Columns, Statement, kept, number, selecting, text, updating
from morango_celery.db.transactions import first_error_wins
from morango_celery.deserialization import BatchResult, deserialize_batch
from morango_celery.deserialization.locks import commit_lazily, take_write_lock
from morango_celery.errors import SystemicError
from morango_celery.log_context import bound
from morango_celery.models import Batch, Run
from morango_celery.printable import printable
from morango_celery.runs.batch_log import log_failures_on_commit
from morango_celery.runs.limits import Limits, current_limits, limited, within
from morango_celery.runs.overdue import RUN, lost_after_seconds, when_begun
from morango_celery.runs.producer import complete, is_at_its_end

LONG_COLUMNS = ("filter", "error")
"""Columns of a run that may be long, and say nothing about its progress."""

BATCH = Columns(Batch)
COUNTED = Columns(Run, without=LONG_COLUMNS)


@dataclass(frozen=True)
class Execution:
    """The result of executing a batch, with the next steps."""

    run_id: int | None
    """None if nothing was executed."""
    result: BatchResult | None
    """None if there was nothing to do, or it could not be done."""
    stage_is_done: bool
    """True if the next stage may be opened, should the run go on."""
    batches_to_send: tuple[int, ...] = ()
    """Batches that have to be sent: the next part of one that was split, or this one once more."""
    run: Run | None = field(default=None, compare=False)
    """The run, if it has ended, or if a batch of it was counted now (it then lacks `LONG_COLUMNS`)."""
    ended: bool = False
    """True if the batch ended the run as well: its caller handles that end."""
    is_left_to_others: bool = False
    """True if only a worker of a newer version knows how to go on."""


def execute_batch(
    batch_id: int,
    ids_sha256: str | None = None,
    message: str | None = None,
    *,
    waits: bool = True,
    ends_run: bool = False,
) -> Execution:
    """Deserialize a batch and record its result.

    :param ids_sha256: hash of ids from the message, which must match the ledger's ids; None for no message
    :param message: id of the message that the attempt belongs to; if another message's attempt was begun
        since, nothing is done. None for no message
    :param waits: True to wait while another batch saves records of exclusive models
    :param ends_run: True to let the last batch of all complete the run in its own transaction, in place of
        `advance`; the caller then handles the end of the run
    :raises ExclusiveModelsTakenError: another batch saves such records, unless `waits`; nothing was done
    :raises InvalidMessageError: the ids are not this batch's; nothing was done
    :raises OperationalError, InterfaceError: the database went away; nothing was written
    Twice, and at the same time: safe; the second one finds the batch done.
    """
    if connection.in_atomic_block:  # SQLite then checks foreign keys at a commit that isn't made here
        return _execute(batch_id, ids_sha256, message, strict=True, waits=waits, ends_run=ends_run)
    try:
        return _execute(batch_id, ids_sha256, message, strict=False, waits=waits, ends_run=ends_run)
    except IntegrityError:
        # Only COMMIT is left to raise it, on SQLite: find the record that is to blame
        return _execute(batch_id, ids_sha256, message, strict=True, waits=waits, ends_run=ends_run)


@first_error_wins()
@transaction.atomic
def _execute(
    batch_id: int,
    ids_sha256: str | None,
    message: str | None,
    *,
    strict: bool,
    waits: bool,
    ends_run: bool,
) -> Execution:
    batch = lock_open_batch(batch_id, ids_sha256, message)
    if isinstance(batch, Execution):
        return batch
    run = batch.run
    if not settings.SYNCHRONOUS_COMMIT:
        commit_lazily()
    with bound(run=run.pk, batch=batch.label, attempt=max(batch.attempts, 1), model=run.stage_models):
        result = deserialize_batch(
            run.profile,
            batch.store_ids,
            run.sync_filter,
            skip_erroring=run.skip_erroring,
            strict=strict,
            waits=waits,
            left_by_others=partial(Batch.known_code_edits, run.pk),
        )
    return record_result(batch, result, ends_run=ends_run)


def lock_open_batch(batch_id: int, ids_sha256: str | None, message: str | None = None) -> Batch | Execution:
    """Return the open batch, locked until the transaction ends; or an execution without a result.

    :param message: None, or the id of the message that has to have begun the last attempt
    :raises InvalidMessageError: the ids are not this batch's
    """
    take_write_lock()
    row = _locking(current_limits(), message is not None).row(batch_id, message)
    if row is None:
        return Execution(None, None, stage_is_done=False)
    size = len(BATCH.names)
    batch: Batch = BATCH.instance(row[:size])
    run: Run = RUN.instance(row[size : size + len(RUN.names)])
    batch.run = run
    if run.has_ended:
        if batch.ids_json:  # another worker executed it when the run ended, and didn't complete it
            Batch.objects.filter(pk=batch_id).forget_ids()
        return Execution(run.pk, None, stage_is_done=False, run=run)
    if not run.is_known or not batch.is_known:
        return Execution(run.pk, None, stage_is_done=False, is_left_to_others=True)
    if not batch.is_open:
        # The worker that closed it may have died before it took the next step
        return Execution(run.pk, None, stage_is_done=run.open_batches == 0, batches_to_send=next_part(batch))
    if ids_sha256 is not None:
        batch.require(ids_sha256)
    if batch.split_from is not None and Batch.objects.filter(Batch.has_to_wait(), pk=batch_id).exists():
        return Execution(run.pk, None, stage_is_done=False)
    return batch


@kept
def _locking(limits: Limits | None, of_message: bool) -> Statement:
    batches = Batch.objects.filter(pk=number(0), **({"attempted_by": text(1)} if of_message else {}))
    with within(limits):
        locked = batches.select_for_update(of=("self",))
        columns = (*BATCH.names, *(f"run__{name}" for name in RUN.names))
        return selecting(locked.values_list(*columns).annotate(**limited()))


def next_part(batch: Batch) -> tuple[int, ...]:
    """Return the batch to send, if any, once an exclusive or split batch, or a part of one, is closed."""
    if batch.split_from is None and batch.state != Batch.State.SPLIT:
        return ()
    return tuple(batch.open_parts().values_list("pk", flat=True)[:1])


def record_result(batch: Batch, result: BatchResult, *, ends_run: bool = False) -> Execution:
    """Close the batch and count it; only for the batch that completes the stage, the stage is done.

    The run's row is locked from here to the commit, so that no two batches both see the last one open.

    :param ends_run: True to complete the run as well, if nothing is left of it
    :raises SystemicError: all records failed alike, and not for their data; roll back
    """
    counts = {name: getattr(result, name) for name in Run.COUNTS}
    retryable_ids = json.dumps(result.retryable_ids) if result.retryable_ids else ""
    code_edits = json.dumps(result.code_edits) if result.code_edits else ""
    batch.close(Batch.State.DONE, retryable_ids=retryable_ids, code_edits=code_edits, **counts)
    counted = _count(batch.run_id, {"retryable_failures": len(result.retryable_ids), **counts})
    _require_no_common_cause(batch, result, counted)
    log_failures_on_commit(batch, result)
    is_last = counted.open_batches == 0
    goes_on = counted.is_known and counted.state == Run.State.RUNNING
    ended = ends_run and goes_on and is_at_its_end(counted)
    if ended:
        complete(counted)
    return Execution(
        batch.run_id,
        result,
        stage_is_done=is_last,
        batches_to_send=next_part(batch),
        run=counted,
        ended=ended,
    )


def _count(run_id: int, counts: Mapping[str, int]) -> Run:
    """Count a batch that is closed, and return the run, without `LONG_COLUMNS`."""
    statement = _counting(tuple(counts), lost_after_seconds())
    values = (run_id, *counts.values())
    if dialect().returns_updated_rows:
        row = statement.row(*values)
        if row is None:
            raise Run.DoesNotExist
        counted: Run = COUNTED.instance(row)
        return counted
    statement.execute(*values)
    return Run.objects.defer(*LONG_COLUMNS).get(pk=run_id)


@kept
def _counting(names: tuple[str, ...], _: float) -> Statement:
    """Return the statement that counts a closed batch.

    :param _: seconds that `when_begun` adds to the time
    """
    counted = {
        "open_batches": F("open_batches") - 1,
        "last_activity_at": clock.now(),
        **when_begun(),  # after the last batch, the same worker begins with the next stage
        **{name: F(name) + number(place) for place, name in enumerate(names, start=1)},
    }
    returned = COUNTED.names if dialect().returns_updated_rows else ()
    return updating(Run.objects.filter(pk=number(0)), counted, returned)


def _require_no_common_cause(batch: Batch, result: BatchResult, run: Run) -> None:
    """Raise an error if all records of a large batch failed alike, since all others would fail, too.

    Records that failed already, in earlier runs or in an earlier pass, are no reason to stop.

    :raises SystemicError: names the error
    """
    least = settings.SAME_ERROR_LIMIT_RECORDS
    if not result.common_cause or not least or result.failed < least:
        return
    if batch.pass_number == 1 and run.failed > run.previous_failures:
        raise SystemicError(
            f"All {result.failed:,} records of {batch} failed with one and the same error, which is not "
            f"about what is in them: {printable(result.common_cause)}\nNone of them was changed. Once the "
            "cause is mended, `manage.py retry_run` tries again. A run that is to go on all the same needs "
            "the setting SAME_ERROR_LIMIT_RECORDS: 0."
        )
