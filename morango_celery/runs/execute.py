"""Executes one batch: app rows, Store rows, errors, counters and ledger in one transaction."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from django.db import IntegrityError, connection, transaction
from django.db.models import F
from django.utils import timezone

from morango_celery.conf import settings
from morango_celery.deserialize import BatchResult, deserialize_batch
from morango_celery.deserialize.sql import commit_lazily, take_write_lock
from morango_celery.errors import RefusedMessageError
from morango_celery.models import Batch, Run, added


@dataclass(frozen=True)
class Execution:
    """What executing a batch came to."""

    run_id: int | None
    """None when the batch is not in the ledger any more."""
    result: BatchResult | None
    """None when there was nothing to do."""
    stage_is_done: bool
    """Whether the next stage may be opened."""


def execute_batch(batch_id: int, store_ids: Sequence[str] | None = None) -> Execution:
    """Deserialize a batch and account for it.

    :param store_ids: the ids that the message carries; read from the ledger when None
    :raises RefusedMessageError: the ids are not this batch's; nothing was done
    :raises OperationalError, InterfaceError: the database went away; nothing was written
    Twice, and at the same time: safe; the second one finds the batch done.
    """
    if connection.in_atomic_block:  # SQLite then checks foreign keys at no commit of ours
        return _execute(batch_id, store_ids, strict=True)
    try:
        return _execute(batch_id, store_ids, strict=False)
    except IntegrityError:
        # Only COMMIT is left to raise it, on SQLite: find the record that is to blame
        return _execute(batch_id, store_ids, strict=True)


@transaction.atomic
def _execute(batch_id: int, store_ids: Sequence[str] | None, *, strict: bool) -> Execution:
    take_write_lock()
    batch = Batch.objects.select_for_update(of=("self",)).select_related("run").filter(pk=batch_id).first()
    if batch is None:
        return Execution(None, None, stage_is_done=False)
    run = batch.run
    if batch.state == Batch.State.DONE or run.is_finished:
        return Execution(run.pk, None, stage_is_done=run.open_batches == 0 and not run.is_finished)
    if store_ids is not None and not batch.holds(store_ids):
        raise RefusedMessageError(
            f"The message's {len(store_ids)} ids are not those of {batch}. It was not carried out; "
            "recover_runs sends the batch again as the ledger has it."
        )
    if not settings.SYNCHRONOUS_COMMIT:
        commit_lazily()
    result = deserialize_batch(
        run.profile,
        batch.store_ids,
        run.sync_filter,
        skip_erroring=run.skip_erroring,
        strict=strict,
    )
    return Execution(run.pk, result, stage_is_done=_account(batch, result))


def _account(batch: Batch, result: BatchResult) -> bool:
    """Close the batch and count it; True for the one that completes its stage, and only for that.

    The run's row is locked from here to the commit, so no two batches both see the last one open.
    """
    counts = {name: getattr(result, name) for name in Run.COUNTS}
    closed: dict[str, Any] = {
        "state": Batch.State.DONE,
        "finished_at": timezone.now(),
        "payload": "",
        "retry_ids": json.dumps(result.retry_ids) if result.retry_ids else "",
    }
    Batch.objects.filter(pk=batch.pk).update(**closed, **counts)
    run = Run.objects.filter(pk=batch.run_id)
    run.update(
        open_batches=F("open_batches") - 1,
        **added(may_succeed_later=len(result.retry_ids), **counts),
    )
    return run.values_list("open_batches", flat=True).get() == 0
