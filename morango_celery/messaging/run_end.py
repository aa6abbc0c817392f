"""Handling of a run's end: messages for runs that waited for it, and for the look at its transfer session."""

from __future__ import annotations

from django.db import DatabaseError, InterfaceError

from morango_celery.db.errors import is_transient
from morango_celery.messaging.dispatch import CeleryDispatch, send
from morango_celery.messaging.events import send_progress_event
from morango_celery.messaging.task_names import NOTIFY_SESSION
from morango_celery.models import Run
from morango_celery.models.run_log import log_end
from morango_celery.runs import completion, sharing
from morango_celery.runs.completion import Notification

TOO_EARLY_SECONDS = 0.25
"""Time that Morango has to write STARTED before a quick run's outcome is written once more."""
NOTIFIED_SECONDS = 2.0
"""Time that a client has to come for the outcome, before somebody looks whether it is still there."""


def handle_run_end(run: Run) -> None:
    """Finalize a run that has ended and the runs that ended with it, and start those that waited for its end.

    A worker goes on with this if Morango isn't ready for the outcome, or the database asks to try again.
    """
    for other in sharing.released(run):
        CeleryDispatch().start(other)
    _finalize(run)
    if run.coalesced_runs:
        for other in sharing.completed_with(run):
            log_end(other.pk, f"{other.state}: {other.sharing}")
            _finalize(other)


def _finalize(run: Run) -> None:
    send_progress_event(run)
    try:
        done = completion.finalize(run)
    except (DatabaseError, InterfaceError) as error:
        if is_transient(error):
            _send_notify_session(run, Notification())
        raise
    if not done.resolved:
        _send_notify_session(run, done)


def _send_notify_session(run: Run, done: Notification) -> None:
    send(NOTIFY_SESSION, [run.pk], f"run {run.pk}", form=run.form, countdown=notify_again_in_seconds(done))


def notify_again_in_seconds(done: Notification, retries: int = 0) -> float:
    """Return the time until a transfer session is looked at again.

    :param done: its notification so far
    """
    return max(NOTIFIED_SECONDS if done.notified else 0.0, min(TOO_EARLY_SECONDS * 2.0**retries, 10.0))
