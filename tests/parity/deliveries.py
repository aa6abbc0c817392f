"""Variants of a run's batches and messages: none of them may show in the result."""

from __future__ import annotations

import random
from collections.abc import Iterator
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any

from django.test.utils import override_settings
from morango.models.certificates import Filter

from morango_celery.models import Batch, Run
from morango_celery.runs.completion import finalize
from morango_celery.runs.execution import execute_batch
from morango_celery.runs.producer import advance, create_run, start


@dataclass(frozen=True)
class Delivery:
    """Cut of batches, and order and repetition of their messages."""

    batch_size: int
    """Records."""
    seed: int
    """Seed of the cuts, the order and the repetitions."""
    repeated: bool = False
    """True if messages arrive more than once, some of them when their batch is long done."""

    def __call__(self, profile: str, *, skip_erroring: bool, filter: Filter | None) -> None:  # noqa: A002
        """Carry out a run as workers would, one message after another."""
        with self.settings():
            run = create_run(
                profile, filter, skip_erroring=skip_erroring, serialize_first=False, session_notified=True
            )
            progress = start(run.pk)
            while not progress.run.has_ended:
                for batch_id in self.messages(run):
                    execute_batch(batch_id)
                progress = advance(run.pk)
            finalize(progress.run)

    def settings(self) -> AbstractContextManager[object]:
        """Return the settings of the project while the run lasts."""
        return override_settings(MORANGO_CELERY={"BATCH_SIZE_RECORDS": self.batch_size})

    def messages(self, run: Run) -> list[int]:
        """Ids of the open stage's batches, cut anew where that is allowed, as they arrive."""
        chance = random.Random(f"{self.seed} {Run.objects.get(pk=run.pk).stage}")
        batches = list(Batch.objects.filter(run=run, state=Batch.State.OPEN).order_by("pk"))
        if len(batches) > 1:
            _cut_anew(batches, chance)
        arriving = [batch.pk for batch in batches]
        if self.repeated:
            done = Batch.objects.filter(run=run, state=Batch.State.DONE).values_list("pk", flat=True)
            arriving += [*arriving[::2], *list(done)[:3]]
        chance.shuffle(arriving)
        return arriving


def _cut_anew(batches: list[Batch], chance: random.Random) -> None:
    """Deal the records out again: those of a stage with several batches don't depend on each other."""
    ids = [store_id for batch in batches for store_id in batch.store_ids]
    chance.shuffle(ids)
    cuts = sorted(chance.choices(range(len(ids) + 1), k=len(batches) - 1))
    for batch, part in zip(batches, _parts(ids, cuts), strict=True):
        fresh = Batch.of(batch.run, batch.number, part)
        values: dict[str, Any] = {name: getattr(fresh, name) for name in ("size", "ids_json", "ids_sha256")}
        Batch.objects.filter(pk=batch.pk).update(**values)


def _parts(ids: list[str], cuts: list[int]) -> Iterator[list[str]]:
    for begin, end in zip([0, *cuts], [*cuts, len(ids)], strict=True):
        yield ids[begin:end]
