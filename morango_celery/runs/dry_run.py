"""Dry runs: the stages and batches that a run would have, and the time it would take. Nothing is written."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass
from typing import Any

from django.db.models import QuerySet
from morango.models.certificates import Filter
from morango.models.core import DeletedModels, HardDeletedModels

from morango_celery.db.transactions import read_only
from morango_celery.models import Run
from morango_celery.runs.dry_division import DryDivision, Totals, Waiting
from morango_celery.runs.sharing import would_wait_for
from morango_celery.serialization.edits import Edits, find_edits
from morango_celery.serialization.source import AppModelSource

ESTIMATED_FROM_RUNS = 20
"""Newest completed runs that the time is estimated from."""


@dataclass(frozen=True)
class DryStage:
    """A stage that a run would have."""

    models: Mapping[str, int]
    """Number of records by the names of their models."""
    batches: int

    @property
    def records(self) -> int:
        return sum(self.models.values())


@dataclass(frozen=True)
class LocalEdits:
    """Edits made here that the run would bring into the Store first."""

    models: Mapping[str, int]
    """Number of edited app rows by the names of their models."""
    deletions: int
    hard_deletions: int

    @property
    def total(self) -> int:
        return sum(self.models.values()) + self.deletions + self.hard_deletions


@dataclass(frozen=True)
class DryRun:
    """A run as it would be. Its stages are those of the first pass, if every record can be done."""

    run: Run
    """Its profile, filter and options; it isn't in the ledger."""
    stages: Sequence[DryStage]
    totals: Totals
    local_edits: LocalEdits
    waits_for: int | None
    """Number of the unfinished run whose end it would have to wait for."""
    seconds: float | None
    """Time that it would take at the speed of the last runs; None if there are none."""
    estimated_from: int
    """Number of runs that the time was estimated from."""

    @property
    def records(self) -> int:
        return sum(stage.records for stage in self.stages)

    @property
    def batches(self) -> int:
        return sum(stage.batches for stage in self.stages)


def dry_run(
    profile: str,
    sync_filter: Filter | None,
    *,
    skip_erroring: bool = False,
    retry_errors: bool = False,
    only_model: str = "",
    only_exception: str = "",
    in_process: bool = False,
) -> DryRun:
    """Return what `api.deserialize` would do with these arguments.

    Cost: five queries if one batch holds all records; then one more for each model with local edits, and up
    to four for each model with waiting records. Memory doesn't grow with the number of records.
    """
    run = Run(
        profile=profile,
        filter=None if sync_filter is None else str(sync_filter),
        skip_erroring=skip_erroring,
        retry_errors=retry_errors,
        only_model=only_model,
        only_exception=only_exception,
        in_process=in_process,
    )
    with read_only():
        edits = find_edits(profile, sync_filter)
        local_edits = _counted(profile, sync_filter, edits)
        stages = []
        with closing(DryDivision(Waiting(run, edits))) as division:
            totals = division.totals
            while division.next_stage():
                stages.append(DryStage(dict(division.stage_models), run.stage_batches))
        records_per_second, runs = speed_of(Run.objects.filter(profile=profile))
        return DryRun(
            run=run,
            stages=stages,
            totals=totals,
            local_edits=local_edits,
            waits_for=would_wait_for(run),
            seconds=run.records / records_per_second if records_per_second else None,
            estimated_from=runs,
        )


def _counted(profile: str, sync_filter: Filter | None, edits: Edits) -> LocalEdits:
    source = AppModelSource(profile, sync_filter)
    edited = [model for model in source.models() if edits.are_in(model)]
    counts = {model.morango_model_name: source.queryset(model).order_by().count() for model in edited}
    deletions, hard_deletions = (
        notes.objects.filter(profile=profile).count() if edits.are_noted_in(notes) else 0
        for notes in (DeletedModels, HardDeletedModels)
    )
    return LocalEdits({name: number for name, number in counts.items() if number}, deletions, hard_deletions)


def speed_of(runs: QuerySet[Run]) -> tuple[float | None, int]:
    """Return the records per second of the last completed ones of these runs, and the number of those.

    Runs without records are left out. Cost: one query.
    """
    completed = runs.filter(
        state=Run.State.COMPLETED,
        records__gt=0,
        started_at__isnull=False,
        finished_at__isnull=False,
    )
    columns = completed.order_by("-pk").values_list("records", "started_at", "finished_at")
    last: list[tuple[int, Any, Any]] = list(columns[:ESTIMATED_FROM_RUNS])
    seconds = sum((finished_at - started_at).total_seconds() for _, started_at, finished_at in last)
    return (sum(run[0] for run in last) / max(seconds, 0.001) if last else None), len(last)
