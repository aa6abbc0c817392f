"""JSON of the commands, for programs: times in ISO 8601, null for unknown values."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypedDict

from morango_celery.comparison.shadow import Totals
from morango_celery.management.judgement import Limits, Problem, problems_of_run, word_for
from morango_celery.management.results import VERSION
from morango_celery.models import Pause
from morango_celery.runs.overview import Overview
from morango_celery.runs.status import Status
from morango_celery.runs.workers import SignsOfWorkers


class BatchesJson(TypedDict):
    """Batches of a run's present stage."""

    stage: int
    open: int


class RecordsJson(TypedDict):
    """Records of a run, by outcome."""

    total: int | None
    handed_out: int
    done: int
    done_by_others: int
    saved: int
    deleted: int
    propagated: int
    conflicted: int
    failed: int
    waiting: int | None


_Pass = TypedDict("_Pass", {"pass": int})  # a keyword, which no class body can name


class ProblemJson(TypedDict):
    """A problem that a monitor should know of."""

    kind: str
    text: str


class JudgementJson(TypedDict):
    """Keys of both objects that ``deserialize_status --json`` writes."""

    version: int
    status: str
    problems: list[ProblemJson]


class RunJson(JudgementJson, _Pass):
    """A run, as ``deserialize_status RUN --json`` writes it."""

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


class WorkersJson(TypedDict):
    """Signs of life of workers."""

    number: int
    idle_seconds: float | None


class ComparisonsJson(TypedDict):
    """Comparisons of syncs with Morango's own function, in mode ``compare``."""

    same: int
    different: int
    differences: int
    failed: int
    waiting: int


class RunListJson(JudgementJson):
    """All runs, as ``deserialize_status --json`` writes them without a run's number."""

    runs: list[RunJson]
    unfinished: int
    oldest_pending_seconds: float
    stalled: list[int]
    failed: list[int]
    fruitless: list[int]
    waiting: int
    in_error: int
    quarantined: int
    workers: WorkersJson | None
    pauses: list[PauseJson]
    comparisons: ComparisonsJson


def run_json(status: Status, problems: Sequence[Problem] | None = None) -> RunJson:
    """Return the JSON of a run.

    :param problems: None for those that the run itself shows
    """
    run = status.run
    if problems is None:
        problems = problems_of_run(status, None, Limits())
    return {
        **_judgement(problems),
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
            "total": status.total if run.has_ended or status.waiting is not None else None,
            "handed_out": run.records,
            "done": run.done,
            "done_by_others": run.left_to_others,
            "saved": run.saved,
            "deleted": run.deleted,
            "propagated": run.propagated,
            "conflicted": run.conflicted,
            "failed": run.failed,
            "waiting": status.left if run.has_ended else status.waiting,
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
    listed: Sequence[Status], found: Overview, comparisons: Totals, problems: Sequence[Problem]
) -> RunListJson:
    """Return the JSON of all runs.

    :param listed: the newest
    """
    workers = found.workers
    return {
        **_judgement(problems),
        "runs": [run_json(one) for one in listed],
        "unfinished": found.unfinished,
        "oldest_pending_seconds": round(found.oldest_pending_seconds, 3),
        "stalled": found.stalled,
        "failed": found.failed,
        "fruitless": found.fruitless,
        "waiting": found.waiting,
        "in_error": found.in_error,
        "quarantined": found.quarantined,
        "workers": None if workers is None else _workers(workers),
        "pauses": list(map(_pause_json, found.pauses)),
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


def _workers(signs: SignsOfWorkers) -> WorkersJson:
    return {"number": signs.number, "idle_seconds": _rounded(signs.idle_seconds)}


def _judgement(problems: Sequence[Problem]) -> JudgementJson:
    return {
        "version": VERSION,
        "status": word_for(problems),
        "problems": [{"kind": problem.kind.word, "text": problem.text} for problem in problems],
    }


def _rounded(value: float | None) -> float | None:
    return None if value is None else round(value, 3)
