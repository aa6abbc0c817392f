"""Celery tasks: shells around `runs`. The sender has `messaging` beside them, the consumer `worker`."""

from __future__ import annotations

import inspect
import logging
import re
import secrets
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from functools import wraps
from itertools import takewhile
from typing import Any

from celery import bootsteps, current_app, shared_task
from celery.contrib.django.task import DjangoTask
from celery.exceptions import SoftTimeLimitExceeded
from celery.signals import celeryd_after_setup, celeryd_init
from django.db import DatabaseError, InterfaceError, connection
from kombu.exceptions import OperationalError as BrokerError

from morango_celery import clock
from morango_celery.celery_compat import reuse_clients
from morango_celery.conf import settings
from morango_celery.db.errors import is_transient
from morango_celery.errors import InvalidMessageError, SoftTimeLimitReached, TransientError
from morango_celery.messaging.events import (
    STARTING_TASK,
    DescribedTask,
    describe,
    id_of_start,
    progress_text,
    send_progress_event,
)
from morango_celery.models import Batch, Run
from morango_celery.printable import make_printable, printable
from morango_celery.runs import attempts, completion, opening, sharing
from morango_celery.runs.attempts import attempt_batch
from morango_celery.runs.completion import Notification
from morango_celery.runs.execution import Execution
from morango_celery.runs.limits import within
from morango_celery.runs.message import Message
from morango_celery.runs.opening import attempt_opening, attempt_start
from morango_celery.runs.overdue import note_sent, note_start_sent, note_unsent, untouched
from morango_celery.runs.producer import BATCHES_IN_MEMORY, Progress, advance, open_batches
from morango_celery.runs.recovery import recover
from morango_celery.stream import chunked
from morango_celery.worker.channels import SurvivesOutages
from morango_celery.worker.event_dispatcher import GathersEvents, bound_events
from morango_celery.worker.message_validation import DropMalformedMessages
from morango_celery.worker.pools import require_processes
from morango_celery.worker.priorities import FairPriorities, priority
from morango_celery.worker.raw_messages import guard_unacknowledged
from morango_celery.worker.shutdown import SoftShutdown
from morango_celery.worker.task_context import (
    Expected,
    current_limits,
    given_back_if_stopped,
    message_of,
    note_limits,
    out_of_reach_of_models,
)

logger = logging.getLogger(__name__)

RETRIED: dict[str, Any] = {
    "autoretry_for": (TransientError,),
    "retry_backoff": 1,
    "retry_backoff_max": 60,
    "retry_jitter": True,
    "max_retries": 10,
}
"""Retries for about five minutes; after that, `recover_runs` sends unfinished work again."""

DELIVERED_AGAIN: dict[str, Any] = {
    "acks_late": True,
    "reject_on_worker_lost": True,
    "acks_on_timeout": False,  # the hard limit
}
"""Options by which a message outlives a worker that it ends, until the ledger has counted enough attempts."""

VALIDATED: dict[str, Any] = {"Strategy": "morango_celery.worker.message_validation:refuse_malformed"}
"""Option by which a worker validates each message of the task as it takes it in."""

TOO_EARLY_SECONDS = 0.25
"""Time that Morango has to write STARTED before a quick run's outcome is written once more."""
NOTIFIED_SECONDS = 2.0
"""Time that a client has to come for the outcome, before somebody looks whether it is still there."""
NOTIFY_RETRIES = 10
"""Retries for a minute; after that, `recover_runs` looks at the session."""
RECOVERIES_BEFORE_STALLED = 15
"""Number of a worker's requests for `recover_runs` in STALLED_AFTER_SECONDS; by default, one a minute."""

WRONG_CLOCK_SECONDS = 24 * 60 * 60
"""Error of a machine's clock up to which others don't take its messages for expired."""

TASK_ID_BYTES = 12
"""Number of random bytes of a message's id. Few, because a message has its id in three places, and may have
those of two others, all in Redis."""
NO_REPLY_TO = "-"
"""Queue for results that are ignored; without it, Celery would name this process, at some length."""

SEND_RETRIES = {"max_retries": 1, "interval_start": 0.1}
LARGEST_ID = 2**63 - 1
_SHA256 = re.compile("[0-9a-f]{64}")


class LedgerTask(Expected, DescribedTask, DjangoTask):
    abstract = True


class BatchTask(Expected, DescribedTask, DjangoTask):
    abstract = True


def checks_arguments(function: Callable[..., Any]) -> Callable[..., Any]:
    """Decorate a task, so that a message with other arguments than the task's is refused.

    :raises InvalidMessageError: names the argument; raised by the decorated function
    """
    signature = inspect.signature(function)

    @wraps(function)
    def checked(*args: Any, **kwargs: Any) -> Any:
        try:
            signature.bind(*args, **kwargs)
        except TypeError as error:
            raise InvalidMessageError(
                f"The message doesn't fit {function.__name__}: {printable(error)}."
            ) from None
        return function(*args, **kwargs)

    return checked


@shared_task(
    name=STARTING_TASK,
    base=LedgerTask,
    bind=True,
    expect_retry=staticmethod(opening.expect_retry),
    **VALIDATED,
    **RETRIED,
    **DELIVERED_AGAIN,
)
@checks_arguments
def start_run(self: Any, run_id: int) -> str:
    """Start a run, or go on with one that is between two stages.

    If all waiting records fit one batch, carry the run out to its end.
    """
    message = message_of(self.request)
    try:
        with _ledger(_id(run_id, "run_id")):
            with (
                given_back_if_stopped(lambda: opening.take_back_start(run_id, message), _look_again),
                out_of_reach_of_models(),
            ):
                progress, execution = attempt_start(run_id, message)
            if execution is None:
                _after_commit(progress)
            else:
                _after_batch(run_id, execution, message)
    except Run.DoesNotExist:
        return _deleted(f"Run {run_id} is")
    if execution is not None and execution.run is not None:
        return progress_text(execution.run)
    run = progress.run
    return (
        f"stage {run.stage} opened: {run.stage_batches} x {run.stage_models}" if progress.opened else str(run)
    )


@shared_task(
    name="morango_celery.deserialize_batch",
    base=BatchTask,
    bind=True,
    expect_retry=staticmethod(attempts.expect_retry),
    **VALIDATED,
    **RETRIED,
    **DELIVERED_AGAIN,
)
@checks_arguments
def deserialize_batch(self: Any, batch_id: int, ids_sha256: str) -> dict[str, int]:
    """Deserialize one batch; the last one of a stage opens the next.

    :param ids_sha256: hash of the batch's ids, to be compared by the transaction that deserializes them
    """
    _id(batch_id, "batch_id")
    _require_hash(ids_sha256)
    with _outages_are_retried():
        batch = Batch.objects.filter(pk=batch_id).only("run_id").first()
    if batch is None:
        _deleted(f"Batch {batch_id} is")
        return {}
    try:
        with _ledger(batch.run_id):
            message = message_of(self.request)
            with (
                given_back_if_stopped(lambda: attempts.take_back(batch_id, message), _look_again),
                out_of_reach_of_models(),
            ):
                execution = attempt_batch(batch_id, ids_sha256, message, ends_run=True)
            _after_batch(batch.run_id, execution, message)
    except Run.DoesNotExist:
        _deleted(f"Run {batch.run_id} is")
        return {}
    result = execution.result
    return {name: getattr(result, name) for name in Run.COUNTS} if result else {}


@shared_task(
    name="morango_celery.notify_session",
    base=LedgerTask,
    bind=True,
    **{**RETRIED, "max_retries": NOTIFY_RETRIES},
)
@checks_arguments
def notify_session(self: Any, run_id: int) -> bool:
    """Finalize an ended run, and notify its transfer session until the outcome has stayed in place.

    Morango may not be ready for the outcome yet, or overwrite it.

    :returns: False if the run was deleted, or hasn't ended
    """
    _id(run_id, "run_id")
    with _outages_are_retried():
        run = Run.objects.filter(pk=run_id).first()
        done = completion.finish(run) if run is not None and run.is_finished else None
    if done is None:
        if run is None:
            _deleted(f"Run {run_id} is")
        return False
    if not done.settled:
        raise self.retry(countdown=_pause(done, self.request.retries))
    return True


def _pause(done: Notification, retries: int = 0) -> float:
    return max(NOTIFIED_SECONDS if done.notified else 0.0, min(TOO_EARLY_SECONDS * 2.0**retries, 10.0))


@shared_task(name="morango_celery.recover_runs", base=LedgerTask, **RETRIED)
@checks_arguments
def recover_runs() -> int:
    """Send messages again for unfinished work. Every worker asks for this once a minute by default."""
    with _outages_are_retried():
        return recover(CeleryDispatch())


class PeriodicRecovery(bootsteps.StartStopStep):
    """A bootstep that asks for `recover_runs` as the worker has connected to the broker, and at intervals.

    So messages that a broker has lost, or that nobody could send to it, wait for no operator and no schedule.
    """

    requires = {"celery.worker.consumer.tasks:Tasks"}

    def start(self, parent: Any) -> None:
        _send(recover_runs, [], "what waits")
        seconds = settings.STALLED_AFTER_SECONDS / RECOVERIES_BEFORE_STALLED
        parent.timer.call_repeatedly(seconds, self.ask, (seconds,))  # as long as this connection lasts

    @staticmethod
    def ask(seconds: float) -> None:
        # With an expiry, so that messages don't pile up for ever if no process has time for them
        expires = max(seconds, WRONG_CLOCK_SECONDS)
        _send(recover_runs, [], "what waits", expires=expires, retry=False)  # the event loop waits for this


@celeryd_init.connect
def _add_steps(instance: Any, **kwargs: Any) -> None:
    bound_events(instance.app)
    reuse_clients()
    guard_unacknowledged()
    instance.app.steps["worker"].add(SoftShutdown)
    instance.app.steps["consumer"].update(
        (DropMalformedMessages, GathersEvents, SurvivesOutages, PeriodicRecovery, FairPriorities)
    )


@celeryd_after_setup.connect
def _require_processes(instance: Any, **kwargs: Any) -> None:
    note_limits(instance)
    require_processes(instance, (start_run.name, deserialize_batch.name))


class CeleryDispatch:
    """A sender of messages through Celery; see `morango_celery.runs.recovery.Dispatch`."""

    def start(self, run: Run) -> bool:
        sent = _send(start_run, [run.pk], describe(run), priority=priority(run), task_id=id_of_start(run))
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
        return _send(deserialize_batch, arguments, batch.description, priority=priority(batch.run))


def _after_commit(progress: Progress) -> None:
    """Send the batches of the stage that was opened, or finish the run that was ended, after the commit."""
    run = progress.run
    if progress.opened:
        unsent = Batch.objects.filter(run=run, state=Batch.State.OPEN, sent_at=None)
        with given_back_if_stopped(lambda: note_unsent(unsent), _look_again):
            _send_batches(open_batches(run))
    elif progress.ended:
        _after_end(run)


def _after_batch(run_id: int, execution: Execution, message: Message) -> None:
    """Take the next steps after the commit that executed a batch, split it or gave it up.

    They are to send batches, to finish the run, or to open its next stage.
    """
    if execution.batches_to_send:
        found = Batch.objects.select_related("run").defer("ids_json").in_bulk(execution.batches_to_send)
        _send_batches(found[pk] for pk in execution.batches_to_send if pk in found)
    if execution.ended and execution.run:
        _after_end(execution.run)
    elif execution.stage_is_done:
        with given_back_if_stopped(lambda: opening.take_back(run_id), _look_again):
            progress = attempt_opening(run_id, lambda run: advance(run.pk), message)
        _after_commit(progress)
    elif execution.run:
        send_progress_event(execution.run)


def _after_end(run: Run) -> None:
    with given_back_if_stopped(lambda: completion.take_back(run), _look_again):
        finish(run)


def _send_batches(batches: Iterable[Batch]) -> None:
    for page in chunked(batches, BATCHES_IN_MEMORY):
        if CeleryDispatch().batches(page) < len(page):
            break


def _look_again() -> None:
    _send(recover_runs, [], "what was given back")


def finish(run: Run) -> None:
    """Finalize a run that has ended and the runs that ended with it, and start those that waited for its end.

    A worker goes on with this if Morango isn't ready for the outcome, or the database asks to try again.
    """
    for other in sharing.released(run):
        CeleryDispatch().start(other)
    _finish(run)
    if run.coalesced_runs:
        for other in sharing.completed_with(run):
            _finish(other)


def _finish(run: Run) -> None:
    send_progress_event(run)
    try:
        done = completion.finish(run)
    except (DatabaseError, InterfaceError) as error:
        if is_transient(error):
            _send_notify_session(run, Notification())
        raise
    if not done.settled:
        _send_notify_session(run, done)


def _send_notify_session(run: Run, done: Notification) -> None:
    _send(notify_session, [run.pk], f"run {run.pk}", countdown=_pause(done))


def is_eager() -> bool:
    """Return True if Celery sends no messages, and carries tasks out where they are sent."""
    return bool(current_app.conf.task_always_eager)


def _send(task: Any, arguments: list[Any], description: str, **options: Any) -> bool:
    """Send a message that the ledger can do without for a while.

    :param description: text that Flower shows instead of the arguments
    :returns: False when the broker can't be reached
    """
    if is_eager():
        logger.error(
            "Celery's task_always_eager is set: nothing is sent. %s waits in the ledger for a worker.",
            description,
        )
        return False
    if task.ignore_result:
        options["reply_to"] = NO_REPLY_TO
    reuse_clients()  # in a web process too
    options.setdefault("task_id", secrets.token_urlsafe(TASK_ID_BYTES))
    options.setdefault("retry", True)
    try:
        task.apply_async(
            arguments,
            headers={"argsrepr": f"({description})"},  # as an option, it would be in the message twice
            time_limit=None,  # not this process's: those of the worker hold
            soft_time_limit=None,
            retry_policy=SEND_RETRIES,
            **options,
        )
    except (BrokerError, AttributeError) as error:  # the second is kombu's, of a channel just lost
        logger.error(
            "The broker can't be reached (%s). Nothing is lost: %s is in the ledger, and "
            "recover_runs (task or command) sends it once the broker is back.",
            printable(error),
            description,
        )
        return False
    return True


@contextmanager
def _ledger(run_id: int) -> Iterator[None]:
    """Let transient errors be retried; any other one ends the run, with its reason in the ledger."""
    try:
        with _outages_are_retried():
            yield
    except (InvalidMessageError, TransientError, Run.DoesNotExist):
        raise
    except (SoftTimeLimitExceeded, SoftTimeLimitReached) as error:
        raise TransientError("The task took longer than the worker's time limit allows.") from error
    except MemoryError as error:  # Celery would end the whole worker for it
        raise TransientError("The worker has not enough memory.") from error
    except Exception as error:
        with _outages_are_retried():
            failed = completion.fail(run_id, error)
        if failed is not None:
            finish(failed)
        make_printable(error)  # Celery logs it with its texts
        raise


@contextmanager
def _outages_are_retried() -> Iterator[None]:
    try:
        # Django itself doesn't wrap errors of closing a server's cursor
        with within(current_limits()), connection.wrap_database_errors:
            yield
    except (DatabaseError, InterfaceError) as error:
        if is_transient(error):
            if not connection.in_atomic_block:
                connection.close_if_unusable_or_obsolete()  # else this process's next task would fail as well
            make_printable(error)
            raise TransientError(f"The database is not available: {error}") from error
        raise


def _deleted(subject: str) -> str:
    text = f"{subject} not in the ledger: it was deleted."
    logger.info(text)
    return text


def _id(value: object, name: str) -> int:
    if isinstance(value, bool) or not isinstance(value, int):
        raise InvalidMessageError(f"{name} is a whole number, not {printable(repr(value))}.")
    if abs(value) > LARGEST_ID:
        raise InvalidMessageError(f"{name} is larger than any in the ledger.")
    return value


def _require_hash(value: object) -> None:
    if not isinstance(value, str) or _SHA256.fullmatch(value) is None:
        raise InvalidMessageError("ids_sha256 is a text of 64 hex digits.")
