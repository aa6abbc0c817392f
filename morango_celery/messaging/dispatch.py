"""Messages for workers, sent by the names of the tasks that they are for."""

from __future__ import annotations

import secrets
from collections.abc import Sequence
from itertools import takewhile
from typing import Any

from celery import current_app
from kombu.exceptions import ChannelError, OperationalError
from kombu.exceptions import ConnectionError as BrokerConnectionError

from morango_celery import clock
from morango_celery.celery_compat import reuse_clients
from morango_celery.log_context import bound, get_logger
from morango_celery.messaging.events import describe, id_of_start
from morango_celery.messaging.priorities import priority
from morango_celery.messaging.rabbitmq import bound_connections
from morango_celery.messaging.task_names import DESERIALIZE_BATCH, RECOVER_RUNS, START_RUN
from morango_celery.messaging.transports import number_of
from morango_celery.models import Batch, Run
from morango_celery.printable import printable
from morango_celery.runs.overdue import note_sent, note_start_sent, untouched
from morango_celery.version import FORM, FORM_HEADER

logger = get_logger(__name__)

TASK_ID_BYTES = 12
"""Number of random bytes of a message's id. Few, because a message has its id in three places, and may have
those of two others, all in Redis."""
NO_REPLY_TO = "-"
"""Queue for results that are ignored; without it, Celery would name this process, at some length."""

SEND_RETRIES = {"max_retries": 1, "interval_start": 0.1}

BROKER_ERRORS = (OperationalError, BrokerConnectionError, ChannelError, AttributeError)
"""Errors of sending. The second and third are RabbitMQ's, which refuses a password or a queue; the last is
kombu's, of a channel just lost."""


class CeleryDispatch:
    """A sender of messages through Celery; see `morango_celery.runs.recovery.Dispatch`."""

    def start(self, run: Run) -> bool:
        with bound(run=run.pk):
            sent = send(
                START_RUN,
                [run.pk],
                describe(run),
                form=run.form,
                priority=priority(run),
                task_id=id_of_start(run),
            )
        if sent:
            note_start_sent(run)
        run.sent_at = clock.now() if sent else None  # for messages to users, even if it could not be noted
        return sent

    def batch(self, batch: Batch) -> bool:
        return self.batches([batch]) == 1

    def batches(self, batches: Sequence[Batch]) -> int:
        """Send messages for several batches.

        :returns: the number of messages sent; the broker didn't take that of the next batch
        Cost: one statement.
        """
        sent = list(takewhile(self._send_batch, batches))
        if sent:  # except for batches that a worker has begun already
            note_sent(untouched(sent))
        return len(sent)

    @staticmethod
    def _send_batch(batch: Batch) -> bool:
        arguments = [batch.pk, batch.ids_sha256]
        with bound(run=batch.run_id, batch=batch.label):
            return send(
                DESERIALIZE_BATCH,
                arguments,
                batch.description,
                form=batch.form,
                priority=priority(batch.run),
            )


class NotingDispatch:
    """A sender of messages that notes whether the broker took them."""

    def __init__(self, dispatch: CeleryDispatch) -> None:
        self._dispatch = dispatch
        self.was_refused = False

    def start(self, run: Run) -> bool:
        return self._noted(self._dispatch.start(run))

    def batch(self, batch: Batch) -> bool:
        return self._noted(self._dispatch.batch(batch))

    def _noted(self, sent: bool) -> bool:
        self.was_refused = self.was_refused or not sent
        return sent


def ask_for_recovery(description: str, **options: Any) -> None:
    """Ask a worker for `recover_runs`, one that knows all that this version may have written.

    :param description: the work that waits for it
    """
    send(RECOVER_RUNS, [], description, **options)


def is_eager() -> bool:
    """Return True if Celery sends no messages, and carries tasks out where they are sent."""
    return bool(current_app.conf.task_always_eager)


def send(
    task_name: str,
    arguments: list[Any],
    description: str,
    *,
    form: int = FORM,
    priority: int | None = None,
    **options: Any,
) -> bool:
    """Send a message that the ledger can do without for a while.

    :param description: text that Flower shows instead of the arguments
    :param form: that of the row which the message is about; a worker that doesn't know it requeues it
    :param priority: one of `morango_celery.messaging.priorities.PRIORITIES`; None for the most urgent
    :returns: False when the broker can't be reached
    """
    if is_eager():
        logger.error(
            "Celery's task_always_eager is set: nothing is sent. %s waits in the ledger for a worker.",
            description,
        )
        return False
    task = current_app.tasks[task_name]
    if task.ignore_result:
        options["reply_to"] = NO_REPLY_TO
    reuse_clients()  # in a web process too
    bound_connections()
    if (number := number_of(priority)) is not None:
        options["priority"] = number
    options.setdefault("task_id", secrets.token_urlsafe(TASK_ID_BYTES))
    options.setdefault("retry", True)
    try:
        task.apply_async(
            arguments,
            # As an option, the description would be in the message twice
            headers={"argsrepr": f"({description})", FORM_HEADER: form},
            time_limit=None,  # not this process's: those of the worker hold
            soft_time_limit=None,
            retry_policy=SEND_RETRIES,
            **options,
        )
    except BROKER_ERRORS as error:
        logger.error(
            "The broker can't be reached (%s). Nothing is lost: %s is in the ledger, and "
            "recover_runs (task or command) sends it once the broker is back.",
            printable(error),
            description,
        )
        return False
    return True
