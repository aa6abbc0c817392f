"""Functions for host projects: start a run, wait for it, carry it out in this process, cancel or retry it."""

from __future__ import annotations

import difflib
import time
from collections.abc import Callable, Collection, Iterable

from django.db import connection, transaction
from morango.models.certificates import Filter

from morango_celery.conf import require_valid, settings
from morango_celery.db.dialect import dialect
from morango_celery.errors import TransientError, UnknownProfileError, UsageError
from morango_celery.messaging.comparisons import send_next_comparison
from morango_celery.messaging.dispatch import CeleryDispatch, is_eager
from morango_celery.messaging.run_end import finish
from morango_celery.models import Run
from morango_celery.reading.filters import parse_filter
from morango_celery.runs import control as runs
from morango_celery.runs.inprocess import run_in_process
from morango_celery.runs.producer import create_run
from morango_celery.runs.recovery import recover
from morango_celery.upstream import profiles

MAX_PAUSE_SECONDS = 1.0


def deserialize(
    profile: str,
    sync_filter: Filter | str | Iterable[str] | None = None,
    *,
    skip_erroring: bool = False,
    retry_errors: bool = False,
    wait: bool | float = False,
    in_process: bool | None = None,
    on_progress: Callable[[Run], None] | None = None,
) -> Run:
    """Deserialize a profile's dirty Store records, after merging local edits into the Store.

    :param sync_filter: partition prefixes; None for the whole profile
    :param skip_erroring: leave out records that are in error already
    :param retry_errors: take only records that are in error now, in any run
    :param wait: True to wait until the run has ended; a number to wait for so many seconds at most
    :param in_process: True to carry the run out here, without Celery; None as the setting IN_PROCESS says
    :param on_progress: called with the run now and then, while it is waited for or carried out here
    :returns: the ledger's row; counts are final only if the run has ended
    :raises UsageError: an unknown profile, a filter, options or settings that can't be used, or waiting
        inside an open transaction, which workers can't see into; nothing was done
    :raises RunFailedError: the run was waited for, and not completed; records in error don't count
    :raises TransientError: `wait` seconds have passed; the run goes on
    When the broker can't be reached, the run waits in the ledger for `recover_runs`.
    """
    if skip_erroring and retry_errors:
        raise UsageError("A run can't both leave out the records in error and take only them.")
    here = runs_in_process(in_process)
    _require_visible(wait, here)
    run = _new_run(
        profile,
        parse_filter(sync_filter),
        skip_erroring=skip_erroring,
        retry_errors=retry_errors,
        serialize_first=True,
        in_process=here,
    )
    return _begin(run, wait, on_progress)


def deserialize_from_store(profile: str, skip_erroring: bool = False, filter: Filter | None = None) -> Run:  # noqa: A002  (as Morango has it)
    """Deserialize in this process, in place of ``morango.sync.operations._deserialize_from_store``.

    Like Morango's function, it merges no local edits first, and it works inside an open transaction.

    :raises UnknownProfileError: no app has syncable models of this profile
    """
    run = _new_run(profile, filter, skip_erroring=skip_erroring, serialize_first=False, in_process=True)
    return run_in_process(run)


def cancel(run_id: int) -> Run:
    """Cancel a run. Its remaining records stay dirty; a transfer session that waits for it is errored.

    Batches that are being executed at the moment are completed.

    :returns: the ledger's row
    :raises UsageError: the ledger doesn't have the run, or it has ended otherwise
    """
    run = runs.cancel(run_id)
    transaction.on_commit(lambda: finish(run))
    return run


def retry(
    run_id: int, *, wait: bool | float = False, on_progress: Callable[[Run], None] | None = None
) -> Run:
    """Start a new run with the profile, filter and options of one that has ended.

    A transfer session that waited for the first run isn't notified of the new one.

    :param wait: as for `deserialize`, which raises the same errors
    :returns: the new run's row; its `retry_of` is the first run
    :raises UsageError: the ledger doesn't have the first run, or it hasn't ended
    """
    require_valid()
    was_here = Run.objects.filter(pk=run_id, in_process=True).exists()
    here = was_here or runs_in_process()
    _require_visible(wait, here)
    return _begin(runs.create_retry(run_id, in_process=here), wait, on_progress)


def recover_runs(*, all_unfinished: bool = False, run_ids: Collection[int] | None = None) -> int:
    """Send messages again for unfinished work; see `morango_celery.runs.recovery.recover`.

    Of comparisons (mode ``compare``), the next one is sent, unless only some runs are chosen.
    """
    sent = recover(CeleryDispatch(), all_unfinished=all_unfinished, run_ids=run_ids)
    return sent + (send_next_comparison(again=all_unfinished) if run_ids is None else 0)


def wait_for(run: Run, seconds: float | None = None, on_progress: Callable[[Run], None] | None = None) -> Run:
    """Wait until a run has ended.

    :param seconds: longest wait; None for no limit
    :param on_progress: called with the run at each look
    :raises RunFailedError: the run has failed, or was cancelled
    :raises TransientError: the time is up
    """
    deadline = None if seconds is None else time.monotonic() + seconds
    pause = 0.02
    while True:
        run.refresh_from_db()
        if on_progress is not None:
            on_progress(run)
        run.require_success()
        if run.is_finished:
            return run
        if deadline is not None and time.monotonic() > deadline:
            raise TransientError(
                f"Run {run.pk} has not ended after {seconds} s (it is {run.state}, "
                f"{run.open_batches} batches open). It goes on; see that a worker is running."
            )
        time.sleep(pause)
        pause = min(pause * 1.5, MAX_PAUSE_SECONDS)


def runs_in_process(in_process: bool | None = None) -> bool:
    """Return True if a run is carried out here: as asked for, as configured, or as the database needs.

    It always is with an eager Celery, which has no workers: each task would run inside the one that sends it.
    """
    if is_eager():
        return True
    for choice in (in_process, settings.IN_PROCESS):
        if choice is not None:
            return choice
    return dialect().has_one_writer


def _require_visible(wait: bool | float, here: bool) -> None:
    if wait is not False and not here and connection.in_atomic_block:
        raise UsageError(
            "A run can't be waited for inside an open transaction: workers only see it once that is "
            "committed. Wait outside of it, or give in_process=True."
        )


def _begin(run: Run, wait: bool | float, on_progress: Callable[[Run], None] | None) -> Run:
    if run.in_process:
        return run_in_process(run, on_progress)
    transaction.on_commit(lambda: CeleryDispatch().start(run))
    if wait is False:
        return run
    return wait_for(run, None if wait is True else wait, on_progress)


def _new_run(profile: str, sync_filter: Filter | None, **options: bool) -> Run:
    require_valid()
    require_profile(profile)
    return create_run(profile, sync_filter, session_notified=True, **options)


def require_profile(profile: str) -> None:
    """Raise an error unless an installed app has syncable models of this profile.

    :raises UnknownProfileError: no app has any
    """
    known = profiles()
    if profile in known:
        return
    close = difflib.get_close_matches(profile, known, n=1) if isinstance(profile, str) else []
    hint = f"Did you mean {close[0]!r}?" if close else f"There are: {', '.join(known) or 'none'}."
    raise UnknownProfileError(f"No installed app has syncable models of the profile {profile!r}. {hint}")
