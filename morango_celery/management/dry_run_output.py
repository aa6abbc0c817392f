"""Dry runs in words and as JSON."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from itertools import count, groupby
from typing import TypedDict

from morango_celery.management.formatting import duration, quarantined_text
from morango_celery.management.results import VERSION
from morango_celery.printable import printable
from morango_celery.runs.dry_run import DryRun, DryStage


class DryStageJson(TypedDict):
    """A stage that a run would have."""

    models: Mapping[str, int]
    records: int
    batches: int


class LocalEditsJson(TypedDict):
    """Edits that a run would bring into the Store first."""

    models: Mapping[str, int]
    deletions: int
    hard_deletions: int
    merged: int


class DryRunJson(TypedDict):
    """A run as it would be, as ``deserialize --dry-run --json`` writes it."""

    version: int
    profile: str
    filter: list[str] | None
    records: int
    batches: int
    stages: list[DryStageJson]
    in_error: int
    quarantined: int
    local_edits: LocalEditsJson
    waits_for: int | None
    seconds: float | None
    estimated_from: int


def dry_run_json(found: DryRun) -> DryRunJson:
    run, edits = found.run, found.local_edits
    return {
        "version": VERSION,
        "profile": run.profile,
        "filter": list(run.sync_filter) if run.sync_filter is not None else None,
        "records": found.records,
        "batches": found.batches,
        "stages": [
            {"models": stage.models, "records": stage.records, "batches": stage.batches}
            for stage in found.stages
        ],
        "in_error": found.totals.in_error,
        "quarantined": found.totals.quarantined,
        "local_edits": {
            "models": edits.models,
            "deletions": edits.deletions,
            "hard_deletions": edits.hard_deletions,
            "merged": found.totals.merged,
        },
        "waits_for": found.waits_for,
        "seconds": None if found.seconds is None else round(found.seconds, 3),
        "estimated_from": found.estimated_from,
    }


def as_lines(found: DryRun) -> list[str]:
    """Return the text of a dry run; the first line has its sums."""
    lines = [
        f"A run of {printable(found.run.profile)} would take {found.records:,} records, in "
        f"{_number(len(found.stages), 'stage')} and {_number(found.batches, 'batch')}. Nothing was written."
    ]
    if found.stages:
        lines += [f"{'stage':>11}  {'batches':>9}  {'records':>11}  models", *_stage_rows(found)]
    lines += _edits_text(found)
    lines += _errors_text(found)
    if found.waits_for is not None:
        lines.append(f"It would wait for the end of run {found.waits_for}.")
    if found.seconds is None:
        lines.append("Its time can't be estimated: no run of this profile was completed.")
    else:
        runs = f"the last {found.estimated_from} runs" if found.estimated_from > 1 else "the last run"
        lines.append(f"At the speed of {runs}, it would take about {duration(found.seconds)}.")
    return lines


def _stage_rows(found: DryRun) -> Iterator[str]:
    """Yield a row for each stage, and one for all consecutive stages of the same models, such as waves."""
    numbers = count(1)
    for names, group in groupby(found.stages, key=lambda stage: frozenset(stage.models)):
        stages = list(group)
        first, *others = [next(numbers) for _ in stages]
        place = f"{first:,}" if not others else f"{first:,}-{others[-1]:,}"
        batches = sum(stage.batches for stage in stages)
        models = ", ".join(f"{printable(name)} {_records_of(name, stages):,}" for name in sorted(names))
        yield f"{place:>11}  {batches:>9,}  {sum(stage.records for stage in stages):>11,}  {models}"


def _records_of(name: str, stages: list[DryStage]) -> int:
    return sum(stage.models[name] for stage in stages)


def _edits_text(found: DryRun) -> Iterator[str]:
    edits = found.local_edits
    if not edits.total:
        return
    counts = {**edits.models, "deletions": edits.deletions, "deletions for good": edits.hard_deletions}
    texts = ", ".join(f"{name} {number:,}" for name, number in counts.items() if number)
    yield f"First, it would bring {_number(edits.total, 'local edit')} into the Store: {texts}."
    if found.totals.merged:
        yield (
            f"  {_number(found.totals.merged, 'waiting record')} would be merged with them, and not be taken."
        )


def _errors_text(found: DryRun) -> Iterator[str]:
    totals, run = found.totals, found.run
    if totals.in_error:
        fate = "left out" if run.skip_erroring else "tried again"
        yield f"{_number(totals.in_error, 'record')} in error would be {fate}."
    if totals.quarantined and run.retry_errors:
        yield f"{_number(totals.quarantined, 'quarantined record')} would be tried again."
    elif totals.quarantined:
        yield f"{quarantined_text(totals.quarantined)}."


def _number(number: int, noun: str) -> str:
    plural = f"{noun}es" if noun.endswith("ch") else f"{noun}s"
    return f"{number:,} {noun if number == 1 else plural}"
