"""Functions for host projects: start runs, carry them out here, wait for, cancel, retry and pause them."""

from __future__ import annotations

import difflib
import time
from collections.abc import Callable, Collection, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from django.db import connection, transaction
from morango.models.certificates import Filter

from morango_celery.conf import require_valid, settings
from morango_celery.db.dialect import dialect
from morango_celery.errors import TransientError, UnknownProfileError, UsageError
from morango_celery.messaging.comparisons import send_next_comparison
from morango_celery.messaging.dispatch import CeleryDispatch, NotingDispatch, is_eager
from morango_celery.messaging.run_end import handle_run_end
from morango_celery.models import Pause, Run
from morango_celery.reading.filters import parse_filter
from morango_celery.runs import control as runs
from morango_celery.runs import pausing
from morango_celery.runs.inprocess import run_in_process
from morango_celery.runs.producer import create_run
from morango_celery.runs.pruning import prune_as_configured
from morango_celery.runs.recovery import count_overdue, recover
from morango_celery.upstream import profiles, registered_models

MAX_PAUSE_SECONDS = 1.0


def deserialize(
    profile: str,
    sync_filter: Filter | str | Iterable[str] | None = None,
    *,
    skip_erroring: bool = False,
    retry_errors: bool = False,
    only_model: str = "",
    only_exception: str = "",
    wait: bool | float = False,
    in_process: bool | None = None,
    on_progress: Callable[[Run], None] | None = None,
) -> Run:
    """Deserialize a profile's dirty Store records, after merging local edits into the Store.

    :param sync_filter: partition prefixes; None for the whole profile
    :param skip_erroring: leave out records that are in error already
    :param retry_errors: take only records that are in error now, in any run
    :param only_model: with `retry_errors`, take only those of the model of this name
    :param only_exception: with `retry_errors`, take only those in error with this exception: its path, or its
        name alone
    :param wait: True to wait until the run has ended; a number to wait for so many seconds at most
    :param in_process: True to carry the run out here, without Celery; None as the setting IN_PROCESS says
    :param on_progress: called with the run now and then, while it is waited for or carried out here
    :returns: the ledger's row; counts are final only if the run has ended
    :raises UsageError: an unknown profile or model, a filter, options or settings that can't be used, or
        waiting inside an open transaction, which workers can't see into; nothing was done
    :raises RunFailedError: the run was waited for, and not completed; records in error don't count
    :raises TransientError: `wait` seconds have passed; the run goes on
    :raises PausedError: a pause holds the run, which was to be carried out here; nothing was done
    When the broker can't be reached, the run waits in the ledger for `recover_runs`; when a pause holds it,
    for `resume`.
    """
    if skip_erroring and retry_errors:
        raise UsageError("A run can't both leave out the records in error and take only them.")
    if (only_model or only_exception) and not retry_errors:
        raise UsageError("A run can take records of one model or exception only if it retries errors.")
    here = runs_in_process(in_process)
    _require_visible(wait, here)
    run = _new_run(
        profile,
        parse_filter(sync_filter),
        skip_erroring=skip_erroring,
        retry_errors=retry_errors,
        only_model=only_model,
        only_exception=only_exception,
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


def cancel(run_id: int, *, of_newer_version: bool = False) -> Run:
    """Cancel a run. Its remaining records stay dirty; a transfer session that waits for it is errored.

    Batches that are being executed at the moment are completed.

    :param of_newer_version: True to cancel also a run that a newer version of this package has written, once
        the workers of that version are gone for good
    :returns: the ledger's row
    :raises UsageError: the ledger doesn't have the run, it has ended otherwise, or is left to a newer version
    """
    run = runs.cancel(run_id, of_newer_version=of_newer_version)
    transaction.on_commit(lambda: handle_run_end(run))
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


def pause(
    profile: str | None = None, sync_filter: Filter | str | Iterable[str] | None = None, *, reason: str = ""
) -> Pause:
    """Hold runs from now on: syncs are taken in and wait. Batches that have begun are completed.

    Runs in a process of their own that have begun go on; new ones are refused, and their syncs wait.

    :param profile: None for all profiles
    :param sync_filter: hold only runs that share partitions with it; None for the whole profile
    :param reason: shown to operators
    :returns: the ledger's row
    :raises UsageError: an unknown profile, or a filter without one
    Twice: safe.
    """
    return pausing.pause(*_scope(profile, sync_filter), reason=reason.strip())


def resume(profile: str | None = None, sync_filter: Filter | str | Iterable[str] | None = None) -> list[int]:
    """End pauses, and send what no other pause holds.

    :param profile: None to end all pauses; with a profile alone, all of its own end
    :param sync_filter: end only the pause of this very filter
    :returns: numbers of the runs that go on
    :raises UsageError: there is no such pause
    When the broker can't be reached, the runs wait in the ledger for `recover_runs`.
    """
    resumed = pausing.resume(*_scope(profile, sync_filter))
    transaction.on_commit(lambda: _send_again(resumed.run_ids))
    return list(resumed.run_ids)


def resume_pause(pause_id: int) -> list[int]:
    """End one pause, as `resume` does.

    :raises UsageError: there is no such pause
    """
    resumed = pausing.resume(pause_id=pause_id)
    transaction.on_commit(lambda: _send_again(resumed.run_ids))
    return list(resumed.run_ids)


def _send_again(run_ids: Collection[int]) -> None:
    if run_ids:
        recover(CeleryDispatch(), all_unfinished=True, run_ids=run_ids)


def _scope(
    profile: str | None, sync_filter: Filter | str | Iterable[str] | None
) -> tuple[str, Filter | None]:
    if profile is None:
        if sync_filter is not None:
            raise UsageError("A filter belongs to a profile: give both.")
        return "", None
    require_profile(profile)
    return profile, parse_filter(sync_filter)


def recover_runs(*, all_unfinished: bool = False, run_ids: Collection[int] | None = None) -> int:
    """Send messages again for unfinished work; see `morango_celery.runs.recovery.recover`.

    Unless only some runs are chosen, the next comparison (mode ``compare``) is sent, too, and old runs are
    deleted (PRUNE_AFTER_DAYS).
    """
    sent = recover(CeleryDispatch(), all_unfinished=all_unfinished, run_ids=run_ids)
    if run_ids is None:
        sent += send_next_comparison(again=all_unfinished)
        prune_as_configured()
    return sent


@dataclass(frozen=True)
class Recovered:
    """Messages that recovery has sent, and those that it could not."""

    sent: int
    waiting: int
    """Number of messages that wait because no broker took them."""


def recover_and_count(*, all_unfinished: bool = False) -> Recovered:
    """Do as `recover_runs`, and count the messages that the broker did not take.

    Cost: two queries more, if it did not.
    """
    dispatch = NotingDispatch(CeleryDispatch())
    sent = recover(dispatch, all_unfinished=all_unfinished)
    if not dispatch.was_refused:
        sent += send_next_comparison(again=all_unfinished)
    prune_as_configured()
    return Recovered(sent, count_overdue() if dispatch.was_refused else 0)


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
        if run.has_ended:
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


def _new_run(profile: str, sync_filter: Filter | None, **options: Any) -> Run:
    require_valid()
    require_profile(profile)
    require_model(profile, options.get("only_model", ""))
    if options["in_process"]:
        pausing.require_not_paused(profile, sync_filter)
    return create_run(profile, sync_filter, session_notified=True, **options)


def require_profile(profile: str) -> None:
    """Raise an error unless an installed app has syncable models of this profile.

    :raises UnknownProfileError: no app has any
    """
    known = profiles()
    if profile in known:
        return
    raise UnknownProfileError(
        f"No installed app has syncable models of the profile {profile!r}. {_hint(profile, known)}"
    )


def require_model(profile: str, name: str) -> None:
    """Raise an error unless `name` is empty, or Morango's name of one of the profile's models.

    :raises UsageError: the profile has no such model
    """
    known = sorted(model.morango_model_name for model in registered_models(profile))
    if name and name not in known:
        raise UsageError(f"The profile {profile!r} has no model {name!r}. {_hint(name, known)}")


def _hint(name: str, known: Sequence[str]) -> str:
    close = difflib.get_close_matches(name, known, n=1) if isinstance(name, str) else []
    return f"Did you mean {close[0]!r}?" if close else f"There are: {', '.join(known) or 'none'}."
