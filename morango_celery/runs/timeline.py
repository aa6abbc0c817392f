"""Timeline of a run: its stages, the batches of each worker, and the attempts that came to no result.

A run of thousands of batches is summed up by stage and worker; only those that had trouble are shown singly.
"""

from __future__ import annotations

import datetime
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import groupby

from django.db.models import Count, Max, Min, Q, QuerySet, Sum

from morango_celery import clock
from morango_celery.models import Batch, Run
from morango_celery.runs.history import PastAttempt, past_attempts

MAX_SINGLE_BATCHES = 500
"""Number of batches up to which each is shown singly."""
MAX_TROUBLED = 200
"""Number of batches with trouble that are shown singly beside sums, those with the most attempts first."""
MAX_STAGES = 40
"""Number of stages up to which each is shown singly; beyond, consecutive ones are taken together."""
MAX_WORKERS = 40
"""Number of workers that are shown singly, those that began first."""

OWN_PROCESS = "the run's own process"
OTHERS = "other workers"

Moment = datetime.datetime


@dataclass(frozen=True)
class StageSpan:
    """A stage, or several consecutive ones."""

    first: int
    last: int
    models: str
    pass_number: int
    begun_at: Moment | None
    """Time at which the first of its batches was begun; None if none was."""
    ended_at: Moment | None
    """Time at which the last of its batches was done; None if any is open."""
    batches: int
    open: int
    split: int
    records: int
    failed: int


@dataclass(frozen=True)
class Work:
    """Work of one worker: a batch, several of one stage, or an attempt that came to no result."""

    worker: str
    begun_at: Moment
    ended_at: Moment | None
    """None if it goes on."""
    stage: int
    number: int | None
    """Number of the batch; None for several."""
    batches: int = 1
    records: int = 0
    failed: int = 0
    attempts: int = 1
    waited_seconds: float | None = None
    """Time from its message, or that of the last one, to its beginning; None if it isn't known."""
    split: bool = False
    split_from: int | None = None
    reason: str | None = None
    """Reason why the attempt came to no result; None for work that is done or goes on."""


@dataclass(frozen=True)
class Timeline:
    """A run from its request to its end, or to now."""

    run: Run
    begin: Moment
    end: Moment
    stages: Sequence[StageSpan]
    work: Sequence[Work]
    workers: Sequence[str]
    """Names of the workers in the order in which they began."""
    is_summed_up: bool
    """True if batches without trouble were taken together by stage and worker."""

    @property
    def lost_attempts(self) -> Sequence[Work]:
        """Attempts that came to no result, the earliest first."""
        return [work for work in self.work if work.reason is not None]


def timeline(run: Run) -> Timeline:
    """Return the timeline of a run.

    Cost: three queries, four for many batches, which read no ids.
    """
    now: Moment = Run.objects.annotate(now=clock.now()).values_list("now", flat=True).get(pk=run.pk)
    stages = list(_stages(run))
    total = sum(stage.batches for stage in stages)
    is_summed_up = total > MAX_SINGLE_BATCHES
    work: list[Work] = []
    batches = Batch.objects.filter(run=run)
    if is_summed_up:
        work += _sums(batches)
        troubled = Q(attempts__gt=1) | Q(state=Batch.State.SPLIT) | ~Q(earlier_attempts="")
        batches = batches.filter(troubled).order_by("-attempts", "pk")[:MAX_TROUBLED]
    else:
        batches = batches.order_by("pk")
    columns = ("stage", "number", "state", "size", "failed", "attempts", "attempted_at", "attempted_by")
    more = ("worker", "earlier_attempts", "split_from", "sent_at", "finished_at")
    for batch in batches.only(*columns, *more):
        work += _of_batch(batch)
    work = sorted(work if run.started_at is None else _filled_in(run, work), key=lambda each: each.begun_at)
    known = list(dict.fromkeys(each.worker for each in work))
    if len(known) > MAX_WORKERS:
        others = set(known[MAX_WORKERS - 1 :])
        work = [replace(each, worker=OTHERS) if each.worker in others else each for each in work]
        known = [*known[: MAX_WORKERS - 1], OTHERS]
    return Timeline(run, run.created_at, run.finished_at or now, _grouped(stages), work, known, is_summed_up)


def _stages(run: Run) -> Iterator[StageSpan]:
    rows = (
        Batch.objects.filter(run=run)
        .values("stage")
        .annotate(
            models=Max("stage_models"),
            passed=Max("pass_number"),
            begun=Min("attempted_at"),
            ended=Max("finished_at"),
            batches=Count("pk"),
            undone=Count("pk", filter=Q(state=Batch.State.OPEN)),
            split=Count("pk", filter=Q(state=Batch.State.SPLIT)),
            records=Sum("size", filter=~Q(state=Batch.State.SPLIT)),
            failures=Sum("failed"),
        )
    )
    before = run.started_at
    for row in rows.order_by("stage"):
        yield StageSpan(
            first=row["stage"],
            last=row["stage"],
            models=row["models"],
            pass_number=row["passed"],
            begun_at=row["begun"] or (before if row["ended"] else None),
            ended_at=None if row["undone"] else row["ended"],
            batches=row["batches"],
            open=row["undone"],
            split=row["split"],
            records=row["records"] or 0,
            failed=row["failures"] or 0,
        )
        before = row["ended"]


def _grouped(stages: Sequence[StageSpan]) -> Sequence[StageSpan]:
    """Take consecutive stages of the same models together if there are many; then any consecutive ones."""
    if len(stages) <= MAX_STAGES:
        return stages
    same = groupby(stages, key=lambda stage: (stage.models, stage.pass_number))
    found = [_together(list(group)) for _, group in same]
    size = -(-len(found) // MAX_STAGES)
    return [_together(found[start : start + size]) for start in range(0, len(found), size)]


def _together(stages: Sequence[StageSpan]) -> StageSpan:
    names = list(dict.fromkeys(stage.models for stage in stages))
    begun = [stage.begun_at for stage in stages if stage.begun_at is not None]
    last = stages[-1]
    return StageSpan(
        first=stages[0].first,
        last=last.last,
        models=names[0] if len(names) == 1 else f"{names[0]} to {names[-1]}",
        pass_number=last.pass_number,
        begun_at=min(begun, default=None),
        ended_at=last.ended_at,
        batches=sum(stage.batches for stage in stages),
        open=sum(stage.open for stage in stages),
        split=sum(stage.split for stage in stages),
        records=sum(stage.records for stage in stages),
        failed=sum(stage.failed for stage in stages),
    )


def _sums(batches: QuerySet[Batch]) -> Iterator[Work]:
    done = batches.filter(state=Batch.State.DONE, finished_at__isnull=False)
    sums = done.values("stage", "worker").annotate(
        begun=Min("attempted_at"),
        ended=Max("finished_at"),
        batches=Count("pk"),
        records=Sum("size"),
        failures=Sum("failed"),
    )
    for row in sums.order_by("stage", "worker"):
        yield Work(
            worker=row["worker"] or OWN_PROCESS,
            begun_at=row["begun"] or row["ended"],
            ended_at=row["ended"],
            stage=row["stage"],
            number=None,
            batches=row["batches"],
            records=row["records"],
            failed=row["failures"],
        )


def _of_batch(batch: Batch) -> Iterator[Work]:
    for past in past_attempts(batch):
        yield _of_past(batch, past)
    begun_at, ended_at = batch.attempted_at or batch.finished_at, batch.finished_at
    goes_on = batch.is_open and bool(batch.attempted_by)
    if begun_at is None or (batch.is_open and not goes_on) or batch.state == Batch.State.SPLIT:
        return
    waited = None
    if batch.sent_at is not None and batch.attempted_at is not None:
        waited = max((batch.attempted_at - batch.sent_at).total_seconds(), 0.0)
    yield Work(
        worker=batch.worker or OWN_PROCESS,
        begun_at=begun_at,
        ended_at=ended_at,
        stage=batch.stage,
        number=batch.number,
        records=batch.size,
        failed=batch.failed,
        attempts=max(batch.attempts, 1),
        waited_seconds=waited,
        split_from=batch.split_from,
    )


def _of_past(batch: Batch, past: PastAttempt) -> Work:
    return Work(
        worker=past.worker or "an unknown worker",
        begun_at=past.begun_at,
        ended_at=past.noted_at,
        stage=batch.stage,
        number=batch.number,
        records=batch.size,
        split=batch.state == Batch.State.SPLIT,
        split_from=batch.split_from,
        reason=past.reason or "not known",
    )


def _filled_in(run: Run, work: Sequence[Work]) -> Iterator[Work]:
    """Yield the work; that of a run in process begins where the work before it ended, for none is noted."""
    before = run.started_at
    for each in sorted(work, key=lambda each: each.ended_at or each.begun_at):
        if each.worker == OWN_PROCESS and each.begun_at == each.ended_at and before is not None:
            yield replace(each, begun_at=min(before, each.begun_at))
            before = each.ended_at
        else:
            yield each
