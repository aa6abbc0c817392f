"""JSON of the commands, for programs: times in ISO 8601, null for unknown values."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypedDict

from morango_celery.comparison.shadow import Totals
from morango_celery.models import Pause
from morango_celery.runs.status import Status


class BatchesJson(TypedDict):
    """Batches of a run's present stage."""

    stage: int
    open: int


class RecordsJson(TypedDict):
    """Records of a run, by outcome."""

    total: int
    done: int
    saved: int
    deleted: int
    propagated: int
    conflicted: int
    failed: int


_Pass = TypedDict("_Pass", {"pass": int})  # a keyword, which no class body can name


class RunJson(_Pass):
    """A run, as ``deserialize_status --json`` writes it."""

    run: int
    profile: str
    filter: list[str] | None
    state: str
    stalled: bool
    paused: bool
    error: str | None
    in_process: bool
    retry_of: int | None
    blocked_by: int | None
    coalesced_into: int | None
    coalesced_runs: int
    stage: int
    models: str | None
    batches: BatchesJson
    records: RecordsJson
    quarantined: int | None
    records_per_second: float | None
    seconds_left: float | None
    idle_seconds: float | None
    last_activity_at: str
    created_at: str
    started_at: str | None
    finished_at: str | None


class PauseJson(TypedDict):
    """An order to let runs wait."""

    profile: str | None
    filter: list[str] | None
    reason: str
    created_at: str


class ComparisonsJson(TypedDict):
    """Comparisons of syncs with Morango's own function, in mode ``compare``."""

    same: int
    different: int
    differences: int
    failed: int
    waiting: int


class RunListJson(TypedDict):
    """The newest runs, as ``deserialize_status --json`` writes them without a run's number."""

    runs: list[RunJson]
    unfinished: int
    stalled: list[int]
    quarantined: int
    pauses: list[PauseJson]
    comparisons: ComparisonsJson


def run_json(status: Status) -> RunJson:
    run = status.run
    return {
        "run": run.pk,
        "profile": run.profile,
        "filter": list(run.sync_filter) if run.sync_filter is not None else None,
        "state": run.state,
        "stalled": status.is_stalled,
        "paused": run.paused,
        "error": run.error or None,
        "in_process": run.in_process,
        "retry_of": run.retry_of_id,
        "blocked_by": run.blocked_by_id,
        "coalesced_into": run.coalesced_into_id,
        "coalesced_runs": run.coalesced_runs,
        "stage": run.stage,
        "models": run.stage_models or None,
        "pass": run.pass_number,
        "batches": {"stage": run.stage_batches, "open": run.open_batches},
        "records": {
            "total": status.total,
            "done": run.done,
            "saved": run.saved,
            "deleted": run.deleted,
            "propagated": run.propagated,
            "conflicted": run.conflicted,
            "failed": run.failed,
        },
        "quarantined": status.quarantined,
        "records_per_second": _rounded(status.records_per_second),
        "seconds_left": _rounded(status.seconds_left),
        "idle_seconds": _rounded(status.idle_seconds),
        "last_activity_at": status.last_activity_at.isoformat(),
        "created_at": run.created_at.isoformat(),
        "started_at": run.started_at.isoformat() if run.started_at else None,
        "finished_at": run.finished_at.isoformat() if run.finished_at else None,
    }


def list_json(
    listed: Sequence[Status],
    *,
    unfinished: int,
    stalled: Sequence[int],
    quarantined: int,
    pauses: Sequence[Pause],
    comparisons: Totals,
) -> RunListJson:
    """Return the JSON of a list.

    :param unfinished: number of all runs that are not done
    :param stalled: numbers of the oldest stalled runs
    :param quarantined: number of all quarantined records
    :param pauses: all that are in force
    :param comparisons: numbers of all comparisons
    """
    return {
        "runs": [run_json(one) for one in listed],
        "unfinished": unfinished,
        "stalled": list(stalled),
        "quarantined": quarantined,
        "pauses": list(map(_pause_json, pauses)),
        "comparisons": {
            "same": comparisons.same,
            "different": comparisons.different,
            "differences": comparisons.differences,
            "failed": comparisons.failed,
            "waiting": comparisons.waiting,
        },
    }


def _pause_json(pause: Pause) -> PauseJson:
    return {
        "profile": pause.profile or None,
        "filter": list(pause.sync_filter) if pause.sync_filter is not None else None,
        "reason": pause.reason,
        "created_at": pause.created_at.isoformat(),
    }


def _rounded(value: float | None) -> float | None:
    return None if value is None else round(value, 3)
