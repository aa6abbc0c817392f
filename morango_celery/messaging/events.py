"""Descriptions and progress of runs, for monitors that read Celery's events, Flower above all."""

from __future__ import annotations

from typing import Any

from celery import current_task

from morango_celery.log_context import get_logger
from morango_celery.messaging.task_names import START_RUN
from morango_celery.models import Run
from morango_celery.printable import printable

logger = get_logger(__name__)


class DescribedTask:
    """A base class for tasks whose messages show monitors a description in place of their arguments.

    Celery drops the description when it sends a message once more for a retry; these tasks keep it.
    """

    request: Any

    def signature_from_request(self, request: Any = None, *arguments: Any, **options: Any) -> Any:
        signature = super().signature_from_request(request, *arguments, **options)  # type: ignore[misc]  # Celery's
        request = self.request if request is None else request
        if description := getattr(request, "argsrepr", None):
            headers = signature.options.get("headers") or {}
            signature.options["headers"] = {**headers, "argsrepr": description}
        return signature


def id_of_start(run: Run) -> str:
    """Return the id of the message that starts the run; monitors show the run's progress under it."""
    return f"run-{run.pk}"


def describe(run: Run) -> str:
    return f"run {run.pk} of {printable(run.profile)}"


def send_progress_event(run: Run) -> None:
    """Send monitors an event with the progress of a run.

    Only a worker sends it, since monitors take every sender for a worker. The task that starts the run sends
    none: its result is the progress.
    Cost: one message to the broker, which keeps it for nobody. When it can't be sent, nothing happens.
    """
    request = current_task.request if current_task else None
    if request is None or request.called_directly or request.id == id_of_start(run):
        return
    if not current_task.app.conf.worker_send_task_events:
        return
    try:
        with current_task.app.events.default_dispatcher(hostname=request.hostname) as dispatcher:
            dispatcher.send(
                "task-progress",
                uuid=id_of_start(run),
                name=START_RUN,  # this and `args` serve monitors that were started later than the run
                args=f"({describe(run)})",
                result=run.progress_text,
            )
    except Exception as error:  # transports raise anything; the batch is done, and must not fail for an event
        logger.debug("The progress of run %s could not be shown: %s", run.pk, printable(error))
