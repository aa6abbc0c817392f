"""Batches of a run's stages: the next records in foreign key order, divided by number and by bytes."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Sequence
from itertools import chain, count, islice
from typing import Any

from morango_celery import clock
from morango_celery.conf import batch_size_records, settings
from morango_celery.models import Batch, Run
from morango_celery.reading.cursors import pages
from morango_celery.runs.inserts import insert
from morango_celery.runs.message import Message
from morango_celery.runs.overdue import when_begun
from morango_celery.runs.plan import (
    PendingRecordSource,
    Remainder,
    SizedId,
    Step,
    description,
    remainder,
    steps,
    waiting_models,
)
from morango_celery.stream import chunked, chunked_by_weight

BATCHES_IN_MEMORY = 20


class Division:
    """Division of the records that a run has left into stages and batches.

    This one reads the Store and writes the ledger. A dry run has another, which does neither.
    """

    def __init__(self, run: Run) -> None:
        """
        :param run: its row is locked by this transaction, which saves it at the end
        """
        self.run = run
        self.plan = steps(run.profile)

    def take_rest(self, *, with_errors: bool = False) -> Remainder | None:
        """Return all remaining records, and move the plan to its end; None if one batch doesn't hold them.

        :param with_errors: as for `remainder`
        """
        if self.run.step >= len(self.plan):
            return Remainder([], [])
        rest = self.remainder(with_errors=with_errors)
        if rest is not None:
            self.run.step = len(self.plan)
        return rest

    def open_next_stage(self) -> None:
        """Hand out the next records in foreign key order, if there are any.

        Consecutive steps become one ordered batch if they fit in it.
        """
        run, plan = self.run, self.plan
        waiting = self.waiting_models()
        ordered: list[SizedId] = []
        covered: list[Step] = []
        while run.step < len(plan):
            source = self.source(plan[run.step], waiting)
            ids = source.sized_ids()
            head, fits = _beginning(ids, ordered)
            if head and plan[run.step].exclusive and self._is_any_exclusive(plan[run.step]):
                if ordered:
                    break  # these records need not wait for other batches of exclusive models
                self._hand_out_exclusive(plan[run.step])
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
                    self.hand_out(wave, plan[run.step])
                    return
            run.step += 1
            self.hand_out(chain(head, ids), plan[run.step - 1])
            return
        if ordered:
            self.hand_out(ordered, *covered)

    def _is_any_exclusive(self, step: Step) -> bool:
        return next(self.source(step.split()[0]).ids(), None) is not None

    def _hand_out_exclusive(self, step: Step) -> None:
        """Hand out a step with exclusive records, or a wave of it if it is a large tree."""
        exclusive, others = (self.source(part) for part in step.split())
        exclusive_ids: Iterable[SizedId] | None = None
        if step.is_tree and not _beginning(exclusive.sized_ids(), [])[1]:
            exclusive_ids = _next_wave(exclusive)
        if exclusive_ids is None:
            self.run.step += 1
            exclusive_ids = exclusive.sized_ids()
        self.hand_out(others.sized_ids(), step, exclusive_ids=exclusive_ids)

    def hand_out(self, ids: Iterable[SizedId], *covered: Step, exclusive_ids: Iterable[SizedId] = ()) -> None:
        """Make the batches of a new stage.

        :param exclusive_ids: ids of records whose batches are executed one after another, beside those of
            `ids`
        """
        _number_stage(self.run, covered)
        for chunk in chunked(_batches(self.run, ids, exclusive_ids), BATCHES_IN_MEMORY):
            self.write(chunk)
            _count(self.run, chunk)

    def remainder(self, *, with_errors: bool) -> Remainder | None:
        """Return what `plan.remainder` does for the configured size of batches."""
        return remainder(
            self.run,
            self.plan,
            rows=batch_size_records(),
            size_bytes=settings.BATCH_SIZE_BYTES,
            with_errors=with_errors,
        )

    def waiting_models(self) -> Collection[str]:
        """Return the names of the models that have any waiting records."""
        return waiting_models(self.run)

    def source(self, step: Step, waiting: Collection[str] | None = None) -> PendingRecordSource:
        """Return the source of a step's waiting records.

        :param waiting: names of the models to look at; None for all
        """
        return PendingRecordSource(self.run, step, waiting)

    def write(self, batches: Sequence[Batch]) -> None:
        """Write some of a stage's batches."""
        Batch.objects.bulk_create(batches)


def _beginning(ids: Iterator[SizedId], before: Sequence[SizedId]) -> tuple[list[SizedId], bool]:
    """Return the ids that fit into a batch after `before` and the next one; and True if all fit."""
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


def _next_wave(source: PendingRecordSource) -> Iterable[SizedId] | None:
    """Return the next wave of a tree.

    Deleted records are first. Then come the records that wait for no parent, and their descendants as far as
    one batch holds them: the worker puts parents first.

    :returns: None if the rest can't be put in an order
    """
    wave = source.next_wave(batch_size_records(), settings.BATCH_SIZE_BYTES)
    for ids in (source.deleted_ids(), wave):
        if first := list(islice(ids, 1)):
            return chain(first, ids)
    return None


def hand_out_rest(run: Run, rest: Remainder, begun_by: Message | None) -> Batch | None:
    """Make one batch of all remaining records, and count the first attempt at it.

    :param begun_by: message of the task that makes this attempt; None to count none
    :returns: the batch, if the attempt was counted
    """
    _number_stage(run, rest.covered)
    attempt: dict[str, Any] = {}
    if begun_by is not None:
        attempt = {
            "attempts": 1,
            "attempted_at": clock.now(),
            "attempted_by": begun_by.id,
            "worker": begun_by.worker,
        }
    batch = Batch.of(run, 1, [store_id for store_id, _ in rest.sized_ids], **when_begun(), **attempt)
    insert(batch)
    _count(run, [batch])
    return batch if attempt else None


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


def open_batches(run: Run) -> Iterator[Batch]:
    """Yield the batches of the open stage that need not wait for others.

    They come without their ids, a few in memory at a time.
    """
    batches = Batch.objects.filter(Batch.may_begin(), run=run, state=Batch.State.OPEN)
    return pages(batches.select_related("run").defer("ids_json"), BATCHES_IN_MEMORY)
