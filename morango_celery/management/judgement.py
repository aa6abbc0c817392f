"""Judgement of the state of runs for monitors: problems, the worst first, and their exit statuses."""

from __future__ import annotations

import enum
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from morango_celery.comparison.shadow import Totals
from morango_celery.management.formatting import duration, number_of
from morango_celery.models import Run
from morango_celery.runs.overview import Overview, is_fruitless
from morango_celery.runs.status import Status
from morango_celery.runs.workers import SignsOfWorkers

FINE = 0


class Kind(enum.Enum):
    """Kind of a problem, with its exit status."""

    NO_WORKER = 6
    STALLED = 3
    FAILED = 4
    LIMIT = 7

    @property
    def word(self) -> str:
        return self.name.lower()


@dataclass(frozen=True)
class Problem:
    kind: Kind
    text: str


@dataclass(frozen=True)
class Limits:
    """Limits of an operator's own; None for no limit."""

    failed: int | None = None
    """Number of failed records."""
    pending_seconds: float | None = None
    """Waiting time of a run for a worker."""
    worker_idle_seconds: float | None = None
    """Time without a sign of life from any worker; None for a third of STALLED_AFTER_SECONDS."""


def problems_of_all(found: Overview, comparisons: Totals, limits: Limits) -> list[Problem]:
    """Return the problems of all runs together, the worst first."""
    return list(_of_all(found, comparisons, limits))


def _of_all(found: Overview, comparisons: Totals, limits: Limits) -> Iterator[Problem]:
    if found.workers is not None and found.workers.are_lost(limits.worker_idle_seconds):
        yield _no_worker(found.workers)
    if found.stalled:
        yield Problem(Kind.STALLED, f"STALLED, the oldest first: {_list(found.stalled)}")
    if found.failed:
        yield Problem(Kind.FAILED, f"FAILED, and made good by no later run: {_list(found.failed)}")
    if found.fruitless:
        yield Problem(
            Kind.FAILED, f"EVERY RECORD FAILED, and no later run saved any: {_list(found.fruitless)}"
        )
    if comparisons.different:
        yield Problem(
            Kind.LIMIT, f"DIFFERENT from Morango: {number_of(comparisons.different, 'compared sync')}"
        )
    yield from _failed_records(found.in_error, "in error now", limits)
    yield from _waits(found.oldest_pending_seconds, "The oldest pending run waits", limits)


def problems_of_run(status: Status, workers: SignsOfWorkers | None, limits: Limits) -> list[Problem]:
    """Return the problems of one run, the worst first.

    :param workers: None if the run needs none
    """
    return list(_of_run(status, workers, limits))


def _of_run(status: Status, workers: SignsOfWorkers | None, limits: Limits) -> Iterator[Problem]:
    run = status.run
    if not run.has_ended and workers is not None and workers.are_lost(limits.worker_idle_seconds):
        yield _no_worker(workers)
    if status.is_stalled:
        yield Problem(Kind.STALLED, f"STALLED: run {run.pk}")
    if run.has_ended and run.state != Run.State.COMPLETED:
        yield Problem(Kind.FAILED, f"{run.state.upper()}: run {run.pk}")
    if is_fruitless(run):
        yield Problem(Kind.FAILED, f"EVERY RECORD FAILED: run {run.pk}")
    yield from _failed_records(run.failed, "failed", limits)
    if run.state == Run.State.PENDING and not (run.sharing or run.in_process or run.paused):
        yield from _waits(status.idle_seconds, f"Run {run.pk} waits", limits)


def exit_status(problems: Sequence[Problem]) -> int:
    """Return the exit status of the worst problem; `FINE` without one."""
    return problems[0].kind.value if problems else FINE


def word_for(problems: Sequence[Problem]) -> str:
    """Return the same as `exit_status` as a word, for programs."""
    return problems[0].kind.word if problems else "ok"


def _no_worker(workers: SignsOfWorkers) -> Problem:
    if workers.idle_seconds is None:
        return Problem(Kind.NO_WORKER, "NO WORKER has ever given a sign of life. See that one is running.")
    ago = duration(workers.idle_seconds)
    return Problem(Kind.NO_WORKER, f"NO WORKER has given a sign of life for {ago}. See that one is running.")


def _failed_records(number: int, how: str, limits: Limits) -> Iterator[Problem]:
    if limits.failed is not None and number > limits.failed:
        yield Problem(Kind.LIMIT, f"{number_of(number, 'record')} {how}: more than {limits.failed:,}")


def _waits(seconds: float, subject: str, limits: Limits) -> Iterator[Problem]:
    if limits.pending_seconds is not None and seconds > limits.pending_seconds:
        longest = duration(limits.pending_seconds)
        yield Problem(Kind.LIMIT, f"{subject} for a worker since {duration(seconds)}: longer than {longest}")


def _list(run_ids: Sequence[int]) -> str:
    return ", ".join(map(str, run_ids))
