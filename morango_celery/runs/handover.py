"""The end of a run: the transfer session that waits for it is told, then whoever listens."""

from __future__ import annotations

import logging
import traceback

from django.db import DatabaseError, transaction
from django.db.models import F
from django.utils import timezone
from morango.constants import transfer_stages, transfer_statuses
from morango.models.core import TransferSession

from morango_celery.conf import settings
from morango_celery.db.errors import is_refusal, remedy
from morango_celery.deserialize.sql import take_write_lock
from morango_celery.models import Run
from morango_celery.serialize import serialize_into_store
from morango_celery.signals import run_finished

logger = logging.getLogger(__name__)


def finish(run: Run) -> bool:
    """What is left to do when a run has ended, after its last commit.

    Local edits that records gave way to are merged into the Store by Morango's rules.

    :returns: whether the transfer session is settled; if not, call `hand_over` again later
    Twice: safe; what was done is not done again.
    """
    settled = hand_over(run)
    if not run.followed_up:
        if run.yielded and run.serialize_first:
            _merge(run)
        run_finished.send(Run, run=run)
        Run.objects.filter(pk=run.pk).update(followed_up=True)
        run.followed_up = True
    return settled


def _merge(run: Run) -> None:
    """Serialize, unless that has ended too many workers: recovery must get past this run."""
    left = Run.objects.filter(pk=run.pk, attempts__lt=settings.MAX_ATTEMPTS)
    if left.update(attempts=F("attempts") + 1):
        serialize_into_store(run.profile, run.sync_filter)
    else:
        logger.error(
            "Serializing the local edits that records of run %s gave way to was tried %s times and never "
            "came to an end. Nothing is lost: the next run or sync that can serialize them merges them.",
            run.pk,
            settings.MAX_ATTEMPTS,
        )


def hand_over(run: Run) -> bool:
    """Write the run's outcome to the transfer session whose deserializing stage it is.

    Morango's middleware writes STARTED after the operation has returned, and so possibly after the
    run has ended. The outcome is written over STARTED only; while the stage is still PENDING it
    would be lost.

    :returns: False when it is too early
    Twice: safe.
    """
    if run.handed_over:
        return True
    outcome = transfer_statuses.COMPLETED if run.state == Run.State.COMPLETED else transfer_statuses.ERRORED
    stage = TransferSession.objects.filter(
        pk=run.transfer_session_id, transfer_stage=transfer_stages.DESERIALIZING
    )
    written = stage.filter(transfer_stage_status=transfer_statuses.STARTED).update(
        transfer_stage_status=outcome, last_activity_timestamp=timezone.now()
    )
    if not written and stage.filter(transfer_stage_status=transfer_statuses.PENDING, active=True).exists():
        return False
    Run.objects.filter(pk=run.pk).update(handed_over=True)
    run.handed_over = True
    return True


def fail(run_id: int, error: Exception) -> Run | None:
    """End a run that can't go on, with its reason.

    :returns: the run, or None when it had ended before or is not in the ledger
    """
    reason = "".join(traceback.format_exception_only(type(error), error)).strip()
    if isinstance(error, DatabaseError) and is_refusal(error):
        reason += f"\n{remedy(error)} What was not done is still dirty; `manage.py retry_run` does it then."
    with transaction.atomic():
        take_write_lock()
        run = Run.objects.select_for_update().filter(pk=run_id).first()
        if run is None or run.is_finished:
            return None
        run.move_to(Run.State.FAILED, error=reason)
    return run
