"""Overview of all runs at one moment, for monitors: waiting runs, failed ones, and whether a worker lives."""

from __future__ import annotations

import datetime
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from django.db.models import Count, Exists, Max, Min, OuterRef, Q, QuerySet
from morango.models.core import Store

from morango_celery import clock
from morango_celery.deserialization.quarantine import is_quarantined
from morango_celery.models import Pause, Run
from morango_celery.runs.pausing import in_force
from morango_celery.runs.status import stalled, unfinished, waits_for_worker
from morango_celery.runs.workers import SignsOfWorkers, signs_of_workers

NAMED = 10
"""Number of runs of each kind that an overview names."""

Since = datetime.datetime | datetime.timedelta
"""A moment, or a time before now."""


@dataclass(frozen=True)
class Overview:
    """All runs of the ledger."""

    unfinished: int
    oldest_pending_seconds: float
    """Waiting time of the oldest pending run that waits for a worker, and for nothing else; 0 without one."""
    stalled: list[int]
    """Numbers of stalled runs, the oldest first."""
    failed: list[int]
    """Numbers of failed runs that no later run made good, the oldest first."""
    fruitless: list[int]
    """Numbers of completed runs in which every record failed, and after which none of theirs was saved. A
    retry of errors isn't among them: its records had failed before."""
    waiting: int
    """Number of records that wait to be tried, without an error. Those of a failed run are among them."""
    in_error: int
    """Number of records that are in error now, quarantined ones included."""
    quarantined: int
    workers: SignsOfWorkers | None
    """None where no workers are needed."""
    pauses: Sequence[Pause]
    """All that are in force."""


def overview(
    since: Since | None = None, stalled_after_seconds: float | None = None, *, needs_workers: bool = True
) -> Overview:
    """Return the overview of all runs, however many there are.

    :param since: look only at runs that have failed since then; None for all in the ledger
    :param stalled_after_seconds: None for the time after which recovery takes a run up
    Cost: eight queries, six where no workers are needed.
    """
    found = unfinished().aggregate(
        number=Count("pk"), oldest=Min("created_at", filter=waits_for_worker()), now=Max(clock.now())
    )
    waited = (found["now"] - found["oldest"]).total_seconds() if found["oldest"] else 0.0
    records = Store.objects.filter(dirty_bit=True).aggregate(
        in_error=Count("pk", filter=Q(deserialization_exception__isnull=False)),
        quarantined=Count("pk", filter=is_quarantined()),
        waiting=Count("pk", filter=Q(deserialization_exception=None)),
    )
    return Overview(
        unfinished=found["number"],
        oldest_pending_seconds=max(waited, 0.0),
        stalled=_numbers(stalled(stalled_after_seconds)),
        failed=_numbers(_ended(since).filter(~_made_good(), state=Run.State.FAILED)),
        fruitless=_numbers(
            _ended(since).filter(
                _is_fruitless(), ~_saved_later(), retry_errors=False, state=Run.State.COMPLETED
            )
        ),
        waiting=records["waiting"],
        in_error=records["in_error"],
        quarantined=records["quarantined"],
        workers=signs_of_workers() if needs_workers else None,
        pauses=in_force(),
    )


def is_fruitless(run: Run) -> bool:
    """Return True if the run is completed, and every record that it tried has failed."""
    return run.state == Run.State.COMPLETED and run.failed > 0 and run.failed == run.done


def moment_of(since: Since) -> Any:
    """Return the expression for a moment; for a time before now, by the database's clock."""
    return clock.now(-since.total_seconds()) if isinstance(since, datetime.timedelta) else since


def _numbers(runs: QuerySet[Run]) -> list[int]:
    return list(runs.order_by("pk").values_list("pk", flat=True)[:NAMED])


def _ended(since: Since | None) -> QuerySet[Run]:
    return Run.objects.all() if since is None else Run.objects.filter(finished_at__gte=moment_of(since))


def _is_fruitless() -> Q:
    return Q(failed__gt=0, **{name: 0 for name in Run.COUNTS if name != "failed"})


def _made_good() -> Exists:
    """Return the condition that a later run of the same records, or of the whole profile, was completed.

    A run that only retries errors is no later run of the records that a failed one has left.
    """
    same = Q(filter=OuterRef("filter")) | Q(filter=None)
    return Exists(_later().filter(same, Q(retry_errors=False) | Q(retry_errors=OuterRef("retry_errors"))))


def _saved_later() -> Q:
    """Return the condition that a later run saved some of these records, or may have.

    One of a narrower filter is enough, for syncs come under narrower filters than runs of a whole profile.
    """
    saving = _later().filter(~_is_fruitless(), skip_erroring=False)
    same = Q(filter=OuterRef("filter")) | Q(filter=None) | Q(filter__startswith=OuterRef("filter"))
    return Q(Exists(saving.filter(same))) | Q(Exists(saving), filter=None)


def _later() -> QuerySet[Run]:
    return Run.objects.filter(
        Q(only_model="") | Q(only_model=OuterRef("only_model")),
        Q(only_exception="") | Q(only_exception=OuterRef("only_exception")),
        pk__gt=OuterRef("pk"),
        profile=OuterRef("profile"),
        state=Run.State.COMPLETED,
    )
