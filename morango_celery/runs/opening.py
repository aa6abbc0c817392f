"""The opening of stages by a worker that may not live to tell: attempts are counted, and come to an end.

What Morango serializes before the first stage, and what a stage hands out, may take more memory or time
than a worker has; then it does so each time.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable

from django.db import DatabaseError, InterfaceError, connection, transaction
from django.db.models import F
from django.utils import timezone

from morango_celery.conf import settings
from morango_celery.db.errors import is_transient
from morango_celery.deserialize.sql import take_write_lock
from morango_celery.errors import RunFailedError
from morango_celery.models import Run
from morango_celery.runs import handover
from morango_celery.runs.attempts import TWIN_SECONDS
from morango_celery.runs.producer import Progress
from morango_celery.runs.recovery import UNFINISHED
from morango_celery.upstream import share_partitions

LOOK_SECONDS = 0.1
"""Between two looks at whether another worker is at it; and who waited longer for its locks has seen that."""


def attempt_opening(run_id: int, open_stage: Callable[[int], Progress]) -> Progress:
    """Let `start` or `advance` open the next stage; when that has ended too many workers, fail the run.

    One stage that ends every worker costs `MAX_ATTEMPTS` of them. An attempt that ended because the
    database was away, or asked to try again, doesn't count.

    :raises Run.DoesNotExist: it was deleted
    :raises OperationalError, InterfaceError: the database went away
    Cost: one short transaction; for the second attempt on, a second or so to see that the one before is over.
    Twice, and at the same time: safe; one waits for the other, and is no attempt then.
    """
    if not _begin(run_id):
        return _give_up(run_id)
    try:
        return open_stage(run_id)
    except (DatabaseError, InterfaceError) as error:
        if is_transient(error):
            _forgive(run_id)
        raise


def _begin(run_id: int) -> bool:
    """Count an attempt, if there is a stage to open and one is left. Waits while another worker is at it."""
    seen = None
    while (run := Run.objects.get(pk=run_id)).state in UNFINISHED and not run.open_batches:
        if run.attempts:
            waited, before, seen = _had_to_wait(run), seen, (run.attempts, run.active_at)
            if waited or seen != before:
                quiet_since = time.monotonic()
            if time.monotonic() - quiet_since < TWIN_SECONDS:
                time.sleep(LOOK_SECONDS)
                continue
        if run.attempts >= settings.MAX_ATTEMPTS:
            return False
        mine = Run.objects.filter(pk=run_id, state__in=UNFINISHED, open_batches=0, attempts=run.attempts)
        if mine.update(attempts=F("attempts") + 1, active_at=timezone.now()):
            return True
    return False


def _had_to_wait(run: Run) -> bool:
    """Whether another worker held what is held while a stage is opened; it doesn't any more.

    Between its transactions it holds nothing, but not for long. No lock outlasts a transaction, for these
    are all that a pooler between us and PostgreSQL keeps together.
    """
    began = time.monotonic()
    with transaction.atomic():
        share_partitions(run.sync_filter)  # Morango's serialization has them to itself
    with transaction.atomic():
        Run.locked(run.pk)
    return time.monotonic() - began > LOOK_SECONDS


@transaction.atomic
def _give_up(run_id: int) -> Progress:
    take_write_lock()
    run = Run.locked(run_id)
    # The stage that was open a moment ago may be done by now; who did that opens the next
    if run.is_finished or run.open_batches or run.attempts < settings.MAX_ATTEMPTS:
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
