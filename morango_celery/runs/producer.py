"""Opening of a run's stages, one after another: records become batches, in one transaction a stage."""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import chain, count, islice
from typing import Any

from django.db import transaction
from django.db.models import Q, QuerySet
from morango.models.certificates import Filter
from morango.models.core import Store

from morango_celery import clock
from morango_celery.conf import batch_size_records, settings
from morango_celery.db.inserts import insert
from morango_celery.db.transactions import first_error_wins
from morango_celery.deserialization import StoreModelSource
from morango_celery.deserialization.quarantine import is_quarantined
from morango_celery.deserialization.sql import take_write_lock
from morango_celery.models import Batch, Run
from morango_celery.reading.cursors import pages, stream
from morango_celery.runs import completion
from morango_celery.runs.overdue import hold_opening, lock_opened, read_run, when_begun
from morango_celery.runs.plan import (
    RETRY_MARK,
    PendingRecordSource,
    Remainder,
    SizedId,
    Step,
    description,
    remainder,
    steps,
    waiting_models,
)
from morango_celery.runs.tree import next_wave
from morango_celery.serialization import serialize_into_store
from morango_celery.signals import first_pass_failed
from morango_celery.stream import chunked, chunked_by_weight

BATCHES_IN_MEMORY = 20

QUICK_SECONDS = 10.0
"""Longest time of a start after which the same task executes the batch: one time limit holds for both."""


@dataclass(frozen=True)
class Progress:
    """The result of a call to `start` or `advance`."""

    run: Run
    """The run as the ledger has it now."""
    opened: bool = False
    """True if this call opened a stage; its batches have to be sent."""
    ended: bool = False
    """True if this call ended the run; `finish` it."""
    begun: Batch | None = None
    """The only batch of the stage, if the first attempt at it was counted with it: execute it."""


def start(run_id: int, begun_by: str | None = None, run: Run | None = None) -> Progress:
    """Take a pending run: merge local edits into the Store, then open the first stage.

    :param begun_by: id of the message of a task that executes the run's batch at once, if one batch holds all
        waiting records; None if there is no such task
    :param run: the row as the ledger had it a moment ago; None to read it
    :raises OperationalError: the database asks to try again
    Twice: safe; a run that has begun is left as it is.
    Cost: as `advance`; one transaction more if anything was edited here, or if one batch doesn't hold all
    waiting records.
    """
    began = time.monotonic()
    opened: Progress | None = None

    def executor() -> str | None:
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
def _open(run_id: int, begun_by: str | None) -> Progress:
    take_write_lock()
    run = lock_opened(run_id)
    if run.state == Run.State.PENDING:
        rest = _begin(run)
    elif run.state != Run.State.RUNNING or run.open_batches:
        return Progress(run)
    else:
        rest = _take_rest(run)
    return _open_stage(run, rest, begun_by)


def _open_if_small(run_id: int, begun_by: str | None) -> Progress | None:
    """Open the only stage of a pending run within the transaction that has serialized for it.

    This transaction holds Morango's lock of the filter's partitions, and others wait for it. So the stage is
    opened here only if one batch holds all waiting records, and no errors have to be cleared.

    :returns: None if nothing was done
    """
    run = lock_opened(run_id)
    if run.state != Run.State.PENDING or run.retry_errors:
        return None
    rest = _take_rest(run, with_errors=not run.skip_erroring)
    if rest is None or rest.in_error:
        return None
    run.change_state(Run.State.RUNNING)
    return _open_stage(run, rest, begun_by)


def _open_stage(run: Run, rest: Remainder | None, begun_by: str | None) -> Progress:
    """Open the next stage of a running run, or complete the run; its row is locked, and no stage is open.

    :param rest: all remaining records; None if one batch doesn't hold them
    """
    run.attempts = 0
    begun = None
    while True:
        if rest is None:
            _open_next_stage(run)
        elif rest.sized_ids:
            begun = _hand_out_rest(run, rest, begun_by)
        elif not _begin_next_pass(run):
            complete(run)
            return Progress(run, ended=True)
        if run.open_batches:
            break
        rest = _take_rest(run)
    run.save_active()
    return Progress(run, opened=True, begun=begun)


def _begin(run: Run) -> Remainder | None:
    """Begin a pending run; this transaction has locked its row, and saves it at the end.

    :returns: as `_take_rest`
    """
    run.change_state(Run.State.RUNNING)
    if run.retry_errors:
        run.previous_failures = _forget_errors(run)
    forgives = not run.skip_erroring and not run.retry_errors
    rest = _take_rest(run, with_errors=forgives)
    if forgives and (rest is None or rest.in_error):
        run.previous_failures = _forget_errors(run)  # now the records in error among the rest wait as well
    return rest


def complete(run: Run) -> None:
    """Complete a run with nothing left to do; this transaction has locked its row."""
    run.finalized = completion.needs_no_finalizing(run)
    run.move_to(Run.State.COMPLETED)


def is_at_its_end(run: Run) -> bool:
    """Return True if no records are left to hand out, in this pass or another."""
    return not run.open_batches and run.step >= len(steps(run.profile)) and not _needs_another_pass(run)


def _forget_errors(run: Run) -> int:
    """Clear earlier errors: from here on, a dirty record in error failed in this run, or is quarantined.

    A run that only retries errors marks their records, to know them from the others.

    :returns: the number of records that were in error
    """
    everything = StoreModelSource(run.profile, run.sync_filter)
    in_error = ~Q(deserialization_error=None)
    if not run.retry_errors:
        in_error &= ~is_quarantined()
    return _make_wait(run, everything.records().filter(everything.condition, in_error))


def _make_wait(run: Run, records: QuerySet[Any]) -> int:
    mark = RETRY_MARK if run.retry_errors else None
    return records.update(deserialization_error=mark, deserialization_exception=None)


def _take_rest(run: Run, *, with_errors: bool = False) -> Remainder | None:
    """Return all remaining records, and move the plan to its end; None if one batch doesn't hold them.

    :param with_errors: as for `remainder`
    """
    plan = steps(run.profile)
    if run.step >= len(plan):
        return Remainder([], [])
    rest = remainder(
        run,
        plan,
        rows=batch_size_records(),
        size_bytes=settings.BATCH_SIZE_BYTES,
        with_errors=with_errors,
    )
    if rest is not None:
        run.step = len(plan)
    return rest


def _open_next_stage(run: Run) -> None:
    """Hand out the next records in foreign key order, if there are any.

    Consecutive steps become one ordered batch if they fit in it.
    """
    plan = steps(run.profile)
    waiting = waiting_models(run)
    ordered: list[SizedId] = []
    covered: list[Step] = []
    while run.step < len(plan):
        source = PendingRecordSource(run, plan[run.step], waiting)
        ids = source.sized_ids()
        head, fits = _beginning(ids, ordered)
        if head and plan[run.step].exclusive and _is_any_exclusive(run, plan[run.step]):
            if ordered:
                break  # these records need not wait for other batches of exclusive models
            _hand_out_exclusive(run, plan[run.step])
            return
        if fits:
            if head:
                covered.append(plan[run.step])
            ordered += head
            run.step += 1
            continue
        if ordered:
            break
        if plan[run.step].is_tree:
            wave = _next_wave(source)
            if wave is not None:
                _hand_out(run, wave, plan[run.step])
                return
        run.step += 1
        _hand_out(run, chain(head, ids), plan[run.step - 1])
        return
    if ordered:
        _hand_out(run, ordered, *covered)


def _beginning(ids: Iterator[SizedId], before: Sequence[SizedId]) -> tuple[list[SizedId], bool]:
    """Return the first ids, until a batch that has those before them is full; and True if all ids fit."""
    room = batch_size_records() - len(before)
    room_bytes = settings.BATCH_SIZE_BYTES - sum(record_bytes for _, record_bytes in before)
    head: list[SizedId] = []
    for sized in ids:
        head.append(sized)
        room -= 1
        room_bytes -= sized[1]
        if room < 0 or room_bytes < 0:
            return head, False
    return head, True


def _is_any_exclusive(run: Run, step: Step) -> bool:
    return next(PendingRecordSource(run, step.split()[0]).ids(), None) is not None


def _hand_out_exclusive(run: Run, step: Step) -> None:
    """Hand out a step with exclusive records, or a wave of it if it is a large tree."""
    exclusive, others = (PendingRecordSource(run, part) for part in step.split())
    exclusive_ids: Iterable[SizedId] | None = None
    if step.is_tree and not _beginning(exclusive.sized_ids(), [])[1]:
        exclusive_ids = _next_wave(exclusive)
    if exclusive_ids is None:
        run.step += 1
        exclusive_ids = exclusive.sized_ids()
    _hand_out(run, others.sized_ids(), step, exclusive_ids=exclusive_ids)


def _next_wave(source: PendingRecordSource) -> Iterable[SizedId] | None:
    """Return the next wave of a tree.

    Deleted records are first. Then come the records that wait for no parent, and their descendants as far as
    one batch holds them: the worker puts parents first.

    :returns: None if the rest can't be put in an order
    """
    wave = next_wave(source.nodes(), batch_size_records(), settings.BATCH_SIZE_BYTES)
    for ids in (source.deleted_ids(), wave):
        if first := list(islice(ids, 1)):
            return chain(first, ids)
    return None


def _hand_out(
    run: Run, ids: Iterable[SizedId], *covered: Step, exclusive_ids: Iterable[SizedId] = ()
) -> None:
    """Make the batches of a new stage.

    :param exclusive_ids: ids of records whose batches are executed one after another, beside those of `ids`
    """
    _number_stage(run, covered)
    for chunk in chunked(_batches(run, ids, exclusive_ids), BATCHES_IN_MEMORY):
        Batch.objects.bulk_create(chunk)
        _count(run, chunk)


def _hand_out_rest(run: Run, rest: Remainder, begun_by: str | None) -> Batch | None:
    """Make one batch of all remaining records, and count the first attempt at it.

    :param begun_by: id of the message of the task that makes this attempt; None to count none
    :returns: the batch, if the attempt was counted
    """
    _number_stage(run, rest.covered)
    is_begun = begun_by is not None
    attempt = {"attempts": 1, "attempted_at": clock.now(), "attempted_by": begun_by} if is_begun else {}
    batch = Batch.of(run, 1, [store_id for store_id, _ in rest.sized_ids], **when_begun(), **attempt)
    insert(batch)
    _count(run, [batch])
    return batch if is_begun else None


def _number_stage(run: Run, covered: Sequence[Step]) -> None:
    run.stage += 1
    run.stage_models = description(covered)
    run.stage_batches = 0


def _count(run: Run, batches: Sequence[Batch]) -> None:
    run.open_batches += len(batches)
    run.stage_batches += len(batches)
    run.records += sum(batch.size for batch in batches)


def _batches(run: Run, ids: Iterable[SizedId], exclusive_ids: Iterable[SizedId]) -> Iterator[Batch]:
    numbers = count(1)
    offset = 0
    for store_ids in chunked_by_weight(exclusive_ids, batch_size_records(), settings.BATCH_SIZE_BYTES):
        yield Batch.of(
            run, next(numbers), store_ids, split_from=Batch.EXCLUSIVE, offset=offset, **when_begun()
        )
        offset += len(store_ids)
    for store_ids in chunked_by_weight(ids, batch_size_records(), settings.BATCH_SIZE_BYTES):
        yield Batch.of(run, next(numbers), store_ids, **when_begun())


def _begin_next_pass(run: Run) -> bool:
    """Make the retryable failures wait again, as long as each pass has fewer of them than the one before.

    For example, a model's ``save()`` may want a record of the same model that came later.

    :returns: False if there is no further pass
    """
    if not _needs_another_pass(run):
        return False
    failures, before = run.retryable_failures, run.previous_retryable_failures
    if before is None:
        first_pass_failed.send(Run, run=run)
    batches = Batch.objects.filter(run=run, pass_number=run.pass_number).exclude(retryable_ids="")
    for batch in stream(batches.only("retryable_ids"), BATCHES_IN_MEMORY):
        _make_wait(run, Store.objects.filter(id__in=batch.ids_to_retry, dirty_bit=True))
    run.pass_number += 1
    run.previous_retryable_failures = failures
    run.retryable_failures = 0
    run.step = 0
    run.records -= failures
    run.failed -= failures
    if not run.retry_errors:
        # Conflicted records are dirty without an error, as the failures are now: they are handed out and
        # counted again, too.
        run.records -= run.conflicted
        run.conflicted = 0
    return True


def _needs_another_pass(run: Run) -> bool:
    failures, before = run.retryable_failures, run.previous_retryable_failures
    return failures > 0 and (before is None or failures < before)


def open_batches(run: Run) -> Iterator[Batch]:
    """Yield the batches of the open stage that need not wait for others.

    They come without their ids, a few in memory at a time.
    """
    batches = Batch.objects.filter(~Batch.has_to_wait(), run=run, state=Batch.State.OPEN)
    return pages(batches.select_related("run").defer("ids_json"), BATCHES_IN_MEMORY)


def create_run(profile: str, sync_filter: Filter | None, **options: Any) -> Run:
    """Write a pending run into the ledger.

    :param options: further columns of `Run`
    """
    text = None if sync_filter is None else str(sync_filter)
    run = Run(profile=profile, filter=text, **options)
    insert(run)
    return run
