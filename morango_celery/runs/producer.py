"""Opening of a run's stages, one after another: records become batches, in one transaction a stage."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import Any

from django.db import transaction
from morango.models.certificates import Filter

from morango_celery.db.transactions import first_error_wins
from morango_celery.deserialization.locks import take_write_lock
from morango_celery.models import Batch, Run
from morango_celery.runs import completion
from morango_celery.runs.batching import Division, hand_out_rest
from morango_celery.runs.inserts import insert
from morango_celery.runs.message import Message
from morango_celery.runs.overdue import hold_opening, lock_opened, read_run
from morango_celery.runs.passes import begin_next_pass, forget_errors, needs_another_pass
from morango_celery.runs.plan import Remainder, steps
from morango_celery.serialization import serialize_into_store

QUICK_SECONDS = 10.0
"""A start that took longer leaves its batch to another task, for one time limit holds for both."""


@dataclass(frozen=True)
class Progress:
    """The result of a call to `start` or `advance`."""

    run: Run
    """The run as the ledger has it now."""
    opened: bool = False
    """True if this call opened a stage; its batches have to be sent."""
    ended: bool = False
    """True if this call ended the run: its caller handles that end."""
    begun: Batch | None = None
    """The only batch of the stage, if the first attempt at it was counted with it: execute it."""


def start(run_id: int, begun_by: Message | None = None, run: Run | None = None) -> Progress:
    """Take a pending run: merge local edits into the Store, then open the first stage.

    :param begun_by: message of a task that executes the run's batch at once, if one batch holds all
        waiting records; None if there is no such task
    :param run: the row as the ledger had it a moment ago; None to read it
    :raises OperationalError: the database asks to try again
    Twice: safe; a run that has begun is left as it is.
    Cost: as `advance`; one transaction more if anything was edited here, or if one batch doesn't hold all
    waiting records.
    """
    began = time.monotonic()
    opened: Progress | None = None

    def executor() -> Message | None:
        return begun_by if time.monotonic() - began < QUICK_SECONDS else None

    def begin_serialization() -> None:
        nonlocal opened
        opened = None  # an earlier attempt at the serialization was undone, and this with it
        hold_opening(run_id)

    def open_if_small() -> None:
        nonlocal opened
        opened = _open_if_small(run_id, executor())

    run = run or read_run(run_id)
    if run.state == Run.State.PENDING and run.serialize_first:
        serialize_into_store(
            run.profile, run.sync_filter, on_begin=begin_serialization, unless_edited=open_if_small
        )
    return opened or _open(run_id, executor())


def advance(run_id: int) -> Progress:
    """Open the next stage if the last one is done, or complete the run if there is none.

    Twice, and at the same time: safe; the first one opens the stage and the others find it open.
    Cost: one query if one batch holds all remaining records. Otherwise, one more, and one per model with
    waiting records; one insert per `BATCHES_IN_MEMORY` batches. Memory doesn't grow with the number of
    records.
    """
    return _open(run_id, None)


@first_error_wins()
@transaction.atomic
def _open(run_id: int, begun_by: Message | None) -> Progress:
    take_write_lock()
    run = lock_opened(run_id)
    if not run.is_known:
        return Progress(run)
    if run.state == Run.State.PENDING:
        rest = _begin(run)
    elif run.state != Run.State.RUNNING or run.open_batches:
        return Progress(run)
    else:
        rest = Division(run).take_rest()
    return _open_stage(run, rest, begun_by)


def _open_if_small(run_id: int, begun_by: Message | None) -> Progress | None:
    """Open the only stage of a pending run within the transaction that has serialized for it.

    This transaction holds Morango's lock of the filter's partitions, and others wait for it. So the stage is
    opened here only if one batch holds all waiting records, and no errors have to be cleared.

    :returns: None if nothing was done
    """
    run = lock_opened(run_id)
    if not run.is_known or run.state != Run.State.PENDING or run.retry_errors:
        return None
    rest = Division(run).take_rest(with_errors=not run.skip_erroring)
    if rest is None or rest.in_error:
        return None
    run.change_state(Run.State.RUNNING)
    return _open_stage(run, rest, begun_by)


def _open_stage(run: Run, rest: Remainder | None, begun_by: Message | None) -> Progress:
    """Open the next stage of a running run, or complete the run; its row is locked, and no stage is open.

    :param rest: all remaining records; None if one batch doesn't hold them
    """
    run.attempts = 0
    begun = None
    while True:
        if rest is None:
            Division(run).open_next_stage()
        elif rest.sized_ids:
            begun = hand_out_rest(run, rest, begun_by)
        elif not begin_next_pass(run):
            complete(run)
            return Progress(run, ended=True)
        if run.open_batches:
            break
        rest = Division(run).take_rest()
    run.save_active()
    return Progress(run, opened=True, begun=begun)


def _begin(run: Run) -> Remainder | None:
    """Begin a pending run; this transaction has locked its row, and saves it at the end.

    :returns: as `take_rest`
    """
    run.change_state(Run.State.RUNNING)
    if run.retry_errors:
        run.previous_failures = forget_errors(run)
    forgives = not run.skip_erroring and not run.retry_errors
    rest = Division(run).take_rest(with_errors=forgives)
    if forgives and (rest is None or rest.in_error):
        run.previous_failures = forget_errors(run)  # now the records in error among the rest wait as well
    return rest


def complete(run: Run) -> None:
    """Complete a run with nothing left to do; this transaction has locked its row."""
    run.finalized = completion.needs_no_finalizing(run)
    run.move_to(Run.State.COMPLETED)


def is_at_its_end(run: Run) -> bool:
    """Return True if no records are left to hand out, in this pass or another."""
    return not run.open_batches and run.step >= len(steps(run.profile)) and not needs_another_pass(run)


def create_run(profile: str, sync_filter: Filter | None, **options: Any) -> Run:
    """Write a pending run into the ledger.

    :param options: further columns of `Run`
    """
    text = None if sync_filter is None else str(sync_filter)
    run = Run(profile=profile, filter=text, **options)
    insert(run)
    return run
