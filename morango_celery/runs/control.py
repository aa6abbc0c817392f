"""Actions of operators on runs: cancel and retry."""

from __future__ import annotations

from django.db import transaction

from morango_celery.deserialization.locks import take_write_lock
from morango_celery.errors import UnknownRunError, UsageError
from morango_celery.models import Run
from morango_celery.runs import pausing
from morango_celery.runs.producer import create_run


def cancel(run_id: int, *, of_newer_version: bool = False) -> Run:
    """Cancel a run; call `handle_run_end` for it afterwards.

    Batches that are being executed at the moment are completed, and counted. Messages that come
    later do nothing, and their records stay dirty for the next run.

    :param of_newer_version: True to cancel a run that this version doesn't know as well; no worker of the
        newer version should live then
    :raises UsageError: the ledger doesn't have the run, it has ended otherwise, or is left to a newer version
    Twice, and at the same time: safe.
    """
    with transaction.atomic():
        take_write_lock()
        run = Run.objects.select_for_update().filter(pk=run_id).first()
        if run is None:
            raise _unknown(run_id)
        if run.state == Run.State.CANCELLED:
            return run
        if run.has_ended:
            raise UsageError(f"Run {run_id} is {run.state} already; there is nothing to cancel.")
        if not run.is_known:
            if not of_newer_version:
                raise UsageError(
                    f"{run.of_newer_version} Cancel it there. If that version is gone for good, "
                    f"`manage.py cancel_run {run_id} --of-newer-version` does it here."
                )
            run.take_over()
        run.move_to(Run.State.CANCELLED, error="It was cancelled.")
    return run


def create_retry(run_id: int, *, in_process: bool) -> Run:
    """Write a pending run with the profile, filter and options of one that has ended.

    :raises UsageError: the ledger doesn't have the first run, or it hasn't ended
    :raises PausedError: a pause holds the retry, which is to be carried out in process
    """
    run = Run.objects.filter(pk=run_id).first()
    if run is None:
        raise _unknown(run_id)
    if not run.is_known:
        raise UsageError(f"{run.of_newer_version} Retry it there.")
    if not run.has_ended:
        raise UsageError(f"Run {run_id} is {run.state}. Wait until it has ended, or cancel it first.")
    if in_process:
        pausing.require_not_paused(run.profile, run.sync_filter)
    return create_run(
        run.profile,
        run.sync_filter,
        skip_erroring=run.skip_erroring,
        retry_errors=run.retry_errors,
        only_model=run.only_model,
        only_exception=run.only_exception,
        serialize_first=run.serialize_first,
        in_process=in_process,
        session_notified=True,
        retry_of=run,
    )


def _unknown(run_id: int) -> UnknownRunError:
    return UnknownRunError(f"The ledger has no run {run_id}.")
