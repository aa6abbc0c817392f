"""Attempts to open stages: each is counted before it begins, because it may end its worker.

The serialization before the first stage, and the records that a stage hands out, may take more memory or time
than a worker has. They would do so at each attempt.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable
from enum import Enum, auto

from django.db import DatabaseError, InterfaceError, connection, transaction
from django.db.models import F, Q, QuerySet

from morango_celery import clock
from morango_celery.conf import settings
from morango_celery.db.dialect import dialect
from morango_celery.db.errors import is_transient
from morango_celery.db.prepared import Statement, kept, number, updating
from morango_celery.deserialization.locks import take_write_lock
from morango_celery.errors import RunFailedError, TransientError
from morango_celery.log_context import get_logger
from morango_celery.models import Batch, Run
from morango_celery.runs import attempts, completion, pausing, sharing
from morango_celery.runs.execution import Execution
from morango_celery.runs.message import NOBODYS, Message
from morango_celery.runs.outages import DatabaseTimes
from morango_celery.runs.overdue import (
    MOMENT_SECONDS,
    RUN,
    hold,
    lost_after_seconds,
    note_retry,
    read_run,
    takes_opening_lock,
    when_begun,
)
from morango_celery.runs.producer import Progress, start

logger = get_logger(__name__)

LOOK_SECONDS = 0.1
"""Pause between two looks for another worker that opens the stage, after an attempt that was just begun."""
LOOKS = 3 * round(MOMENT_SECONDS / LOOK_SECONDS)


class _NotBegun(Enum):
    """The reason why no attempt was begun."""

    USED_UP = auto()
    HELD = auto()
    """Another worker opens the stage, or the session of one that was lost."""
    NOTHING_TO_DO = auto()
    PAUSED = auto()


def attempt_opening(
    run_id: int, open_stage: Callable[[Run], Progress], message: Message = NOBODYS
) -> Progress:
    """Open the next stage of a run; when that has ended too many workers, fail the run.

    One stage that ends every worker costs `MAX_ATTEMPTS` of them. An attempt that ended because the
    database was away, or asked to try again, doesn't count.

    :param open_stage: calls `start` or `advance`, for a run as the ledger had it when the attempt was counted
    :raises TransientError: the worker that had this message before is lost, but its session still holds the
        lock
    :raises Run.DoesNotExist: it was deleted
    :raises OperationalError, InterfaceError: the database went away
    Cost: one statement; from the second attempt on, a second or so to see that the one before is over.
    Twice, and at the same time: safe; the second one does nothing. Should the first one's worker be lost,
    recovery finds a run that nobody opens. While a pause holds the run, it does nothing.
    """
    beginning = _begin(run_id)
    if isinstance(beginning, Run):
        if beginning.attempts > 1:
            logger.warning(
                "An attempt to open the run's next stage came to no result; this is attempt %s.",
                beginning.attempts,
                extra={"run": run_id, "attempt": beginning.attempts},
            )
        return _attempt(beginning, open_stage, message)
    if beginning is _NotBegun.USED_UP:
        return _give_up(run_id)
    if beginning is _NotBegun.HELD and message.was_lost:
        raise TransientError("A session of a worker that was lost still opens the run's next stage.")
    return Progress(Run.objects.get(pk=run_id))


def _attempt(run: Run, open_stage: Callable[[Run], Progress], message: Message) -> Progress:
    times = DatabaseTimes(message.retries)
    try:
        with connection.execute_wrapper(times):
            return open_stage(run)
    except (DatabaseError, InterfaceError) as error:
        if is_transient(error):
            _uncount_after_outage(run.pk, times, error)
        raise


def attempt_start(run_id: int, message: Message = NOBODYS) -> tuple[Progress, Execution | None]:
    """Start a run, and execute its batch as well if one batch holds all waiting records.

    Such a run needs no other message. The transaction that makes the batch counts the attempt at it. A
    message that comes once more, because its worker was lost or the database away, goes on with its batch.

    :returns: the progress of the run's start, and the execution of its batch, if there was one
    :raises: as `attempt_opening` and `attempt_batch`
    Cost: two commits more than the batch alone.
    Twice, and at the same time: safe; the second one does nothing.
    """
    progress = attempt_opening(run_id, lambda run: start(run.pk, message, run), message)
    if progress.begun is not None:
        batch = progress.begun
        return progress, attempts.attempt_begun(batch.pk, batch.ids_sha256, message, ends_run=True)
    if message.was_lost and not progress.opened and not progress.ended:
        left = _begun_at_start(run_id).only("ids_sha256").first()
        if left is not None:
            return progress, attempts.attempt_batch(left.pk, left.ids_sha256, message, ends_run=True)
    return progress, None


def uncount_after_signal(run_id: int) -> None:
    """Uncount the attempt of a message after a signal has ended its process, which is no fault of the run.

    Recovery sends the run again, at its next look.
    """
    _attempt_of(run_id).update(attempts=F("attempts") - 1, overdue_at=None)


def uncount_start_after_signal(run_id: int, message: Message) -> None:
    """Uncount the attempts of `attempt_start` after a signal: at the run's start, and at its batch."""
    uncount_after_signal(run_id)
    for batch_id in _begun_at_start(run_id).values_list("pk", flat=True):
        attempts.uncount_after_signal(batch_id, message)


def expect_retry(run_id: int, message: Message, seconds: float) -> None:
    """Note that a message retries the run's start, or its batch, in some seconds."""
    note_retry(Run.objects.filter(pk=run_id, state__in=Run.UNFINISHED, open_batches=0), seconds)
    note_retry(_begun_at_start(run_id), seconds)


def _begun_at_start(run_id: int) -> QuerySet[Batch]:
    """Return the open batch that the task which starts the run executes, unless it was sent to others."""
    batches = Batch.objects.filter(run=run_id, state=Batch.State.OPEN, sent_at=None)
    return batches.filter(run__state=Run.State.RUNNING, run__stage=1, run__stage_batches=1)


def _begin(run_id: int) -> Run | _NotBegun:
    """Count an attempt, if there is a stage to open, an attempt is left, and no other worker opens it.

    A worker opens it if it holds the run's advisory lock, or has counted its attempt a moment ago.

    :returns: the run, with the attempt; or the reason why there is none
    """
    in_spite_of_pauses = False
    for _ in range(LOOKS):
        with transaction.atomic():
            take_write_lock()
            run = _count_attempt(run_id, in_spite_of_pauses)
            if run is not None:
                if run.state != Run.State.PENDING or sharing.take_part(run):
                    return run
                continue  # blocked, unless the other one has ended at this moment
        to_open = _to_open(run_id)
        if not to_open.exists():
            return _NotBegun.NOTHING_TO_DO
        with transaction.atomic():
            if not to_open.filter(takes_opening_lock()).exists():
                return _NotBegun.HELD
        if not in_spite_of_pauses:
            is_held = pausing.hold(to_open)
            if is_held:
                return _NotBegun.PAUSED
            in_spite_of_pauses = is_held is not None
            if in_spite_of_pauses:
                continue
        if to_open.filter(~_just_begun(), attempts__gte=settings.MAX_ATTEMPTS).exists():
            return _NotBegun.USED_UP
        time.sleep(LOOK_SECONDS)
    return _NotBegun.HELD  # if not its advisory lock, then its row


def _to_open(run_id: int) -> QuerySet[Run]:
    unfinished = Run.objects.filter(Run.known(), pk=run_id, state__in=Run.UNFINISHED, open_batches=0)
    return unfinished.filter(sharing.ready())


def _count_attempt(run_id: int, in_spite_of_pauses: bool) -> Run | None:
    statement = _beginning(settings.MAX_ATTEMPTS, lost_after_seconds(), in_spite_of_pauses)
    if dialect().returns_updated_rows:
        row = statement.row(run_id)
        return None if row is None else RUN.instance(row)
    return read_run(run_id) if statement.execute(run_id) else None


@kept
def _beginning(most_attempts: int, _: float, in_spite_of_pauses: bool) -> Statement:
    """Return the statement that counts an attempt to open a run's next stage.

    :param _: seconds that `when_begun` adds to the time
    :param in_spite_of_pauses: whether pauses may be in force; otherwise the statement finds nothing then
    """
    left = _to_open(number(0)).filter(~_just_begun(), takes_opening_lock(), attempts__lt=most_attempts)
    if not in_spite_of_pauses:
        left = left.filter(pausing.nothing_is_paused())
    free = left.select_for_update(skip_locked=True).values("pk")
    begun = {"attempts": F("attempts") + 1, "last_activity_at": clock.now(), **when_begun()}
    return updating(
        Run.objects.filter(pk__in=free), begun, RUN.names if dialect().returns_updated_rows else ()
    )


def _just_begun() -> Q:
    return Q(attempts__gt=0, last_activity_at__gt=clock.now(-MOMENT_SECONDS))


@transaction.atomic
def _give_up(run_id: int) -> Progress:
    take_write_lock()
    run = Run.locked(run_id)
    # The stage that was open a moment ago may be done by now; the worker that closed it opens the next
    if run.has_ended or not run.is_known or run.open_batches or run.attempts < settings.MAX_ATTEMPTS:
        return Progress(run)
    error = RunFailedError(
        f"{'Starting it' if run.state == Run.State.PENDING else 'Opening its next stage'} was tried "
        f"{run.attempts} times and never came to an end: its worker was killed, crashed, ran out of memory "
        "or exceeded the time limit, or the database ended it. The worker's log says more. What was not done "
        "is still dirty; once the cause is mended, or the worker has what it needs, `manage.py retry_run` "
        "does it."
    )
    failed = completion.fail(run_id, error)
    return Progress(run) if failed is None else Progress(failed, ended=True)


def _uncount_after_outage(run_id: int, times: DatabaseTimes, error: DatabaseError | InterfaceError) -> None:
    """Uncount an attempt that the database ended, unless the attempt itself was the reason.

    The attempt stays counted if the database isn't there to note it, or takes long to notice that this
    attempt's session is gone.
    """
    with contextlib.suppress(DatabaseError, InterfaceError):
        if not connection.in_atomic_block:
            connection.close_if_unusable_or_obsolete()
        if times.reason_to_count(error):
            return
        with transaction.atomic():
            take_write_lock()
            if hold(_attempt_of(run_id)):
                _attempt_of(run_id).update(attempts=F("attempts") - 1)


def _attempt_of(run_id: int) -> QuerySet[Run]:
    return Run.objects.filter(pk=run_id, attempts__gt=0)
