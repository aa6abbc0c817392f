"""Runs carried out step by step, as workers do it, and the state of the database afterwards."""

from __future__ import annotations

import datetime
import json
from collections import Counter
from typing import Any

from django.utils import timezone
from morango.constants import transfer_stages
from morango.models import Store, TransferSession
from morango.models.certificates import Filter

from morango_celery.models import Batch, Run
from morango_celery.runs import completion
from morango_celery.runs.batching import open_batches
from morango_celery.runs.execution import execute_batch
from morango_celery.runs.producer import advance, create_run, start
from tests.support import factories
from tests.support.transfers import new_transfer
from worker.school.models import PROFILE, Learner, Unit

MISSING = "ab" * 16
Stages = list[list[list[str]]]
"""The ids handed out: by stage, then by batch."""


def new_run(**options: Any) -> Run:
    return create_run(PROFILE, None, **{"serialize_first": False, "session_notified": True, **options})


def open_batch(records: int) -> Batch:
    """Return the one batch of a run that has handed out so many records, as it says."""
    unit = factories.store_row("unit", school_id=f"{records:032x}")
    run = create_run(PROFILE, Filter(unit.partition), serialize_first=False, session_notified=True)
    (batch,) = open_batches(start(run.pk).run)
    batch.run.records = records
    batch.run.save()
    return batch


def carry_out(run: Run | None = None) -> tuple[Run, Stages]:
    """Carry a run out as workers do, message by message, and return the ids that were handed out."""
    progress = start((run or new_run()).pk)
    stages: Stages = []
    while not progress.ended:
        batches = list(open_batches(progress.run))
        stages.append([batch.store_ids for batch in batches])
        done = [execute_batch(batch.pk, batch.ids_sha256).stage_is_done for batch in batches]
        assert done == [False] * (len(done) - 1) + [True]  # the last one opens the next stage
        progress = advance(progress.run.pk)
        assert progress.opened is not progress.ended
    completion.finalize(progress.run)
    return progress.run, stages


def deserialized_state() -> tuple[Any, ...]:
    """Return everything that deserializing may change."""
    ledger = ("pk", "state", "error", "step", "stage", "pass_number", "open_batches", *Run.COUNTS)
    return (
        factories.app_rows(),
        list(Store.objects.order_by("id").values()),
        list(Run.objects.values_list(*ledger)),
        list(Batch.objects.order_by("pk").values_list("pk", "state", "ids_json", *Run.COUNTS)),
    )


def errors() -> dict[str, str | None]:
    failed = Store.objects.exclude(deserialization_exception=None)
    return dict(failed.values_list("id", "deserialization_exception"))


def dirty_ids() -> set[str]:
    return set(Store.objects.filter(dirty_bit=True).values_list("id", flat=True))


def learners_in_order(number: int, **columns: Any) -> list[tuple[Store, Learner]]:
    """Return learners with Store and app rows, in the order in which they are handed out."""
    unit = factories.store_row("unit", dirty=False)
    Unit.deserialize(json.loads(unit.serialized)).save(update_dirty_bit_to=False)
    rows = sorted(
        (factories.build_store_row("learner", unit=unit, username=f"old-{n}") for n in range(number)),
        key=lambda row: str(row.partition),
    )
    pairs = []
    for n, row in enumerate(rows):
        data = {**json.loads(row.serialized), "username": f"name-{n}"}
        learner = Learner.deserialize(data)
        learner.save(update_dirty_bit_to=False)
        row.serialized = json.dumps(data)
        row.save(force_insert=True)
        pairs.append((row, learner))
    return pairs


def rename(row: Store, username: str) -> None:
    row.serialized = json.dumps({**json.loads(row.serialized), "username": username})
    row.save()


def unit(parent: Store | None = None, **options: Any) -> Store:
    return factories.store_row("unit", **({"parent": parent} if parent is not None else {}), **options)


def edited_unit(row: Store, name: str, **values: Any) -> None:
    """Save the row's app row with a local edit."""
    data = {**json.loads(row.serialized), "name": name, **values}
    local = Unit.deserialize(data)
    local._morango_source_id, local._morango_partition = row.source_id, row.partition
    local.save(update_dirty_bit_to=True)


class RecordingDispatcher:
    """A dispatcher that sends nothing."""

    def __init__(self, *, broker_is_there: bool = True) -> None:
        self.broker_is_there = broker_is_there
        self.sent: Counter[str] = Counter()

    def start(self, run: Run) -> bool:
        self.sent[f"run {run.pk}"] += 1
        return self.broker_is_there

    def batch(self, batch: Batch) -> bool:
        self.sent[f"batch {batch.pk}"] += 1
        return self.broker_is_there


def ago(seconds: float) -> datetime.datetime:
    return timezone.now() - datetime.timedelta(seconds=seconds)


def sent(seconds_ago: float = 0) -> dict[str, datetime.datetime]:
    """Return the columns of a row whose message was sent then, and which is overdue after 900 s."""
    return {"sent_at": ago(seconds_ago), "overdue_at": ago(seconds_ago - 900)}


def waiting_session(status: str) -> TransferSession:
    return new_transfer(
        PROFILE,
        factories.SCHOOL_ID,
        transfer_stage=transfer_stages.DESERIALIZING,
        transfer_stage_status=status,
    )
