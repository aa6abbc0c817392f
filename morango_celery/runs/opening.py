"""The opening of stages by a worker that may not live to tell: attempts are counted, and come to an end.

What Morango serializes before the first stage, and what a stage hands out, may take more memory or time
than a worker has; then it does so each time.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable

from django.db import DatabaseError, InterfaceError, connection, transaction
from django.db.models import F

from morango_celery.conf import settings
from morango_celery.deserialize.sql import is_transient, taking_turns
from morango_celery.errors import RunFailedError
from morango_celery.models import Run
from morango_celery.runs import handover
from morango_celery.runs.producer import Progress
from morango_celery.runs.recovery import UNFINISHED


def attempt_opening(run_id: int, open_stage: Callable[[int], Progress]) -> Progress:
    """Let `start` or `advance` open the next stage; when that has ended too many workers, fail the run.

    One stage that ends every worker costs `MAX_ATTEMPTS` of them. An attempt that ended because the
    database was away, or asked to try again, doesn't count.

    :raises Run.DoesNotExist: it was deleted
    :raises OperationalError, InterfaceError: the database went away
    Cost: one short transaction, and on PostgreSQL a lock that is not a row's.
    Twice, and at the same time: safe; on PostgreSQL one waits for the other, and is no attempt then.
    """
    with taking_turns(run_id):
        if not _begin(run_id):
            return _give_up(run_id)
        try:
            return open_stage(run_id)
        except (DatabaseError, InterfaceError) as error:
            if is_transient(error):
                _forgive(run_id)
            raise


def _begin(run_id: int) -> bool:
    """Count an attempt, if there is a stage to open and an attempt left."""
    run = Run.objects.filter(pk=run_id, state__in=UNFINISHED, open_batches=0)
    with transaction.atomic():
        return run.filter(attempts__lt=settings.MAX_ATTEMPTS).update(attempts=F("attempts") + 1) == 1


def _give_up(run_id: int) -> Progress:
    run = Run.objects.get(pk=run_id)
    if run.is_finished or run.open_batches:
        return Progress(run)
    error = RunFailedError(
        f"{'Starting it' if run.state == Run.State.PENDING else 'Opening its next stage'} was tried "
        f"{run.attempts} times and never came to an end: its worker was killed, crashed, ran out of memory "
        "or exceeded the time limit. The worker's log says more. What was not done is still dirty; once the "
        "cause is mended, or the worker has what it needs, `manage.py retry_run` does it."
    )
    failed = handover.fail(run_id, error)
    return Progress(run) if failed is None else Progress(failed, ended=True)


def _forgive(run_id: int) -> None:
    """Take back an attempt that the database ended. If it isn't there to hear it, the attempt counts."""
    with contextlib.suppress(DatabaseError, InterfaceError):
        if not connection.in_atomic_block:
            connection.close_if_unusable_or_obsolete()
        Run.objects.filter(pk=run_id, attempts__gt=0).update(attempts=F("attempts") - 1)
