"""Runs under filters that overlap, carried out in this process."""

from __future__ import annotations

from typing import Any

from morango.models.certificates import Filter

from morango_celery.models import Run
from morango_celery.runs.batching import open_batches
from morango_celery.runs.execution import execute_batch
from morango_celery.runs.opening import attempt_opening
from morango_celery.runs.producer import Progress, advance, create_run, start
from tests.support import factories
from tests.support.run_helpers import (
    sent,
)
from worker.school.models import PROFILE

SCHOOL = factories.SCHOOL_ID

UNIT = f"{SCHOOL}:unit"


def asked_for(prefixes: str | None = SCHOOL, **options: Any) -> Run:
    columns = {"serialize_first": False, "session_notified": True, **sent(), **options}
    return create_run(PROFILE, None if prefixes is None else Filter(prefixes), **columns)


def begin(run: Run) -> Progress:
    return attempt_opening(run.pk, lambda run: start(run.pk))


def complete(run: Run) -> Run:
    """Execute the open batches of a run until it has ended."""
    progress = Progress(run, opened=True)
    while not progress.ended:
        assert progress.opened
        for batch in open_batches(progress.run):
            execute_batch(batch.pk)
        progress = attempt_opening(run.pk, lambda run: advance(run.pk))
    return progress.run


def read(*runs: Run) -> list[Run]:
    for run in runs:
        run.refresh_from_db()
    return list(runs)


def states(*runs: Run) -> list[str]:
    return [run.state for run in read(*runs)]
