"""The end of a run: the transfer session that waits for it is notified, then receivers of `run_finished`."""

from __future__ import annotations

import contextlib
import traceback
from dataclasses import dataclass

from django.db import DatabaseError, InterfaceError, connection, transaction
from django.db.models import Case, Exists, F, OuterRef, Q, QuerySet, Subquery, Value, When
from morango.constants import transfer_stages, transfer_statuses
from morango.models.core import TransferSession

from morango_celery import clock
from morango_celery.conf import settings
from morango_celery.db.errors import is_refusal, is_transient, remedy
from morango_celery.deserialization.locks import take_write_lock
from morango_celery.log_context import get_logger
from morango_celery.models import Run
from morango_celery.printable import printable_lines
from morango_celery.runs.limits import limited
from morango_celery.runs.outages import UNCOUNTED_IN_A_ROW, DatabaseTimes
from morango_celery.runs.overdue import hold_opening
from morango_celery.serialization import serialize_into_store
from morango_celery.signals import run_finished

logger = get_logger(__name__)

WATCHED_SECONDS = 60 * 60
"""Longest time after a run's end for which its session is watched, if its client never comes for the outcome.
No request that may still write STARTED takes that long."""


@dataclass(frozen=True)
class Notification:
    """The result of a call to `notify_sessions`."""

    notified: int = 0
    """Number of sessions that have the outcome now. A request may still be about to write STARTED over it."""
    resolved: int = 0
    """Number of runs with no session left to notify."""


def finalize(run: Run) -> Notification:
    """Finalize a run that has ended, after its last commit: notify its session, merge edits, send the signal.

    Local edits that records conflicted with are merged into the Store by Morango's rules. A run that a newer
    version has written is left to that one, but for its session: an outcome is known by its state.

    :returns: if the run isn't resolved, call `notify_sessions` again later
    Twice: safe; no step is done again.
    """
    notification = (
        Notification(resolved=1) if run.session_notified else notify_sessions(Run.objects.filter(pk=run.pk))
    )
    if run.is_known and not run.finalized:
        if _has_edits_to_merge(run):
            _merge(run)
        run_finished.send(Run, run=run)
        Run.objects.filter(pk=run.pk).update(finalized=True)
        run.finalized = True
    return notification


def needs_no_finalizing(run: Run) -> bool:
    """Return True if nothing is left to do after the end of a run, except to notify its session."""
    return not _has_edits_to_merge(run) and not run_finished.has_listeners(Run)


def _has_edits_to_merge(run: Run) -> bool:
    return bool(run.conflicted) and run.serialize_first


def _merge(run: Run) -> None:
    """Serialize local edits, unless that has ended too many workers: recovery must get past this run."""
    left = Run.objects.filter(pk=run.pk, attempts__lt=settings.MAX_ATTEMPTS)
    if left.update(attempts=F("attempts") + 1):
        # No message counts the retries of this, so a lost connection without a reason counts at once
        times = DatabaseTimes(UNCOUNTED_IN_A_ROW)
        try:
            with connection.execute_wrapper(times):
                serialize_into_store(run.profile, run.sync_filter, on_begin=lambda: hold_opening(run.pk))
        except (DatabaseError, InterfaceError) as error:
            if is_transient(error):
                with contextlib.suppress(DatabaseError, InterfaceError):  # then the attempt stays counted
                    if not connection.in_atomic_block:
                        connection.close_if_unusable_or_obsolete()
                    if not times.reason_to_count(error):
                        uncount_attempt(run)
            raise
    else:
        logger.error(
            "Serializing the local edits that records of run %s conflicted with was tried %s times and never "
            "came to an end. Nothing is lost: the next run or sync that can serialize them merges them.",
            run.pk,
            settings.MAX_ATTEMPTS,
            extra={"run": run.pk},
        )


def uncount_attempt(run: Run) -> None:
    """Uncount an attempt to finalize a run, after a signal or an outage has ended it."""
    begun = Run.objects.filter(pk=run.pk, finalized=False, attempts__gt=0)
    begun.update(attempts=F("attempts") - 1)


def notify_sessions(runs: QuerySet[Run]) -> Notification:
    """Write the outcomes of ended runs to the transfer sessions that wait for them.

    Morango's middleware writes STARTED after the operation has returned, and so possibly after the run has
    ended. Its view then saves all columns, as it has read them a moment before. So the outcome is written
    over STARTED only, and again each time that STARTED is back, until the session has moved on, or is closed
    or gone.

    Cost: two statements, for any number of runs.
    Twice, and at the same time: safe.
    """
    # An outcome is known by its state, in whichever form the run was carried out
    ended = runs.filter(session_notified=False, state__in=Run.ENDED)
    outcome = Case(
        When(state=Run.State.COMPLETED, then=Value(transfer_statuses.COMPLETED)),
        default=Value(transfer_statuses.ERRORED),
    )
    its_run = Run.objects.filter(transfer_session_id=OuterRef("pk"))
    sessions = TransferSession.objects.filter(transfer_stage=transfer_stages.DESERIALIZING)
    waiting = sessions.filter(
        pk__in=ended.values("transfer_session_id"), transfer_stage_status=transfer_statuses.STARTED
    )
    with transaction.atomic():
        take_write_lock()
        # Without waiting for a row that a request holds: it may be frozen, and there is a next time
        free = waiting.select_for_update(skip_locked=True).values("pk")
        notified = TransferSession.objects.filter(pk__in=free).update(
            transfer_stage_status=Subquery(its_run.annotate(outcome=outcome).values("outcome")),
            last_activity_timestamp=clock.now(),
        )
        stays = Exists(sessions.filter(pk=OuterRef("transfer_session_id"), active=True))
        long_ended = Q(finished_at__lt=clock.now(-WATCHED_SECONDS))
        resolved = ended.filter(~stays | long_ended).update(session_notified=True)
    return Notification(notified, resolved)


def fail(run_id: int, error: Exception) -> Run | None:
    """End a run that can't go on, with its reason.

    :returns: the run; None if it had ended before, is not in the ledger, or is left to a newer version
    :raises OperationalError: somebody holds its row for too long; the next attempt fails it
    """
    reason = printable_lines("".join(traceback.format_exception_only(type(error), error)))
    if isinstance(error, DatabaseError) and is_refusal(error):
        reason += f"\n{remedy(error)} What was not done is still dirty; `manage.py retry_run` does it then."
    with transaction.atomic():
        take_write_lock()
        run = Run.objects.select_for_update().annotate(**limited()).filter(pk=run_id).first()
        if run is None or run.has_ended or not run.is_known:
            return None
        run.move_to(Run.State.FAILED, error=reason)
    return run
