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
from morango_celery.worker.kombu_compat import GathersEvents, SurvivesOutages, bound_events, reuse_clients
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
"""About five minutes; what is not done then is sent again by `recover_runs`."""

DELIVERED_AGAIN: dict[str, Any] = {
    "acks_late": True,
    "reject_on_worker_lost": True,
    "acks_on_timeout": False,  # the hard limit
}
"""A message outlives the worker that it ends; the attempts that the ledger counts put an end to that."""

VALIDATED: dict[str, Any] = {"Strategy": "morango_celery.worker.message_validation:refuse_malformed"}
"""How a worker takes a message of the task in."""

TOO_EARLY_SECONDS = 0.25
"""How long Morango has to write STARTED, until the outcome of a run that was so quick is tried again."""
NOTIFIED_SECONDS = 2.0
"""How long a client has to come for the outcome, until somebody looks whether that is still there."""
HAND_OVER_RETRIES = 10
"""A minute; then it is looked at by `recover_runs`."""
SWEEPS_PER_RESEND = 15
"""How often a worker asks for `recover_runs` within STALLED_AFTER_SECONDS: by default, once a minute."""

WRONG_CLOCK_SECONDS = 24 * 60 * 60
"""How wrong a machine's clock may be until others take what it sends for expired."""

TASK_ID_BYTES = 12
"""Random ones: a message has its id in three places, and may have those of two others; all are in Redis."""
NO_REPLY_TO = "-"
"""Who waits for a result that is ignored; Celery would name this process, at some length."""

SEND_RETRIES = {"max_retries": 1, "interval_start": 0.1}
LARGEST_ID = 2**63 - 1
_SHA256 = re.compile("[0-9a-f]{64}")


class LedgerTask(Expected, DescribedTask, DjangoTask):
    abstract = True


class BatchTask(Expected, DescribedTask, DjangoTask):
    abstract = True


def checks_arguments(function: Callable[..., Any]) -> Callable[..., Any]:
    """Refuse a message whose arguments the task doesn't have, and say which."""
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
    """Start a run, or let one that stands between two stages go on.

    If all that waits fits one batch, carry it out to its end.
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
                _follow_up_batch(run_id, execution, message)
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

    :param ids_sha256: the hash of the ids of Store rows that the ledger's batch has: it is read with these in
        the transaction that deserializes them
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
            _follow_up_batch(batch.run_id, execution, message)
    except Run.DoesNotExist:
        _deleted(f"Run {batch.run_id} is")
        return {}
    result = execution.result
    return {name: getattr(result, name) for name in Run.COUNTS} if result else {}


@shared_task(
    name="morango_celery.notify_session",
    base=LedgerTask,
    bind=True,
    **{**RETRIED, "max_retries": HAND_OVER_RETRIES},
)
@checks_arguments
def notify_session(self: Any, run_id: int) -> bool:
    """Tell the transfer session what came of its run, as soon as Morango is ready to hear it; and see that it
    was heard. Do whatever else is left to do after the run's end.
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
    """Send again what no worker finished in time. Every worker asks for it now and then."""
    with _outages_are_retried():
        return recover(CeleryDispatch())


class PeriodicRecovery(bootsteps.StartStopStep):
    """Asks for `recover_runs` each time the worker has connected to the broker, and now and then after that.

    So what a broker has lost, and what nobody could send to it, waits for no operator and no schedule.
    """

    requires = {"celery.worker.consumer.tasks:Tasks"}

    def start(self, parent: Any) -> None:
        _send(recover_runs, [], "what waits")
        seconds = settings.STALLED_AFTER_SECONDS / SWEEPS_PER_RESEND
        parent.timer.call_repeatedly(seconds, self.sweep, (seconds,))  # as long as this connection lasts

    @staticmethod
    def sweep(seconds: float) -> None:
        # Expires, so that they don't pile up for ever where no process has time for them
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
    """Sends messages through Celery; see `morango_celery.runs.recovery.Dispatch`."""

    def start(self, run: Run) -> bool:
        sent = _send(start_run, [run.pk], describe(run), priority=priority(run), task_id=id_of_start(run))
        if sent:
            note_start_sent(run)
        run.sent_at = clock.now() if sent else None  # for whoever tells where it is, whatever could be noted
        return sent

    def batch(self, batch: Batch) -> bool:
        return self.batches([batch]) == 1

    def batches(self, batches: Sequence[Batch]) -> int:
        """Send messages for several batches.

        :returns: how many were sent; the first of the others is the one that the broker didn't take
        Cost: one statement.
        """
        sent = list(takewhile(self._send_batch, batches))
        if sent:  # and unless a worker has begun already
            note_sent(untouched(sent))
        return len(sent)

    @staticmethod
    def _send_batch(batch: Batch) -> bool:
        arguments = [batch.pk, batch.ids_sha256]
        return _send(deserialize_batch, arguments, batch.description, priority=priority(batch.run))


def _after_commit(progress: Progress) -> None:
    """What has to happen after the commit that opened a stage or ended the run."""
    run = progress.run
    if progress.opened:
        unsent = Batch.objects.filter(run=run, state=Batch.State.OPEN, sent_at=None)
        with given_back_if_stopped(lambda: note_unsent(unsent), _look_again):
            _send_batches(open_batches(run))
    elif progress.ended:
        _follow_up_end(run)


def _follow_up_batch(run_id: int, execution: Execution, message: Message) -> None:
    """What has to happen after the commit that executed a batch, or did what else was to be done about it."""
    if execution.batches_to_send:
        found = Batch.objects.select_related("run").defer("ids_json").in_bulk(execution.batches_to_send)
        _send_batches(found[pk] for pk in execution.batches_to_send if pk in found)
    if execution.ended and execution.run:
        _follow_up_end(execution.run)
    elif execution.stage_is_done:
        with given_back_if_stopped(lambda: opening.take_back(run_id), _look_again):
            progress = attempt_opening(run_id, lambda run: advance(run.pk), message)
        _after_commit(progress)
    elif execution.run:
        send_progress_event(execution.run)


def _follow_up_end(run: Run) -> None:
    with given_back_if_stopped(lambda: completion.take_back(run), _look_again):
        finish(run)


def _send_batches(batches: Iterable[Batch]) -> None:
    for page in chunked(batches, BATCHES_IN_MEMORY):
        if CeleryDispatch().batches(page) < len(page):
            break


def _look_again() -> None:
    _send(recover_runs, [], "what was given back")


def finish(run: Run) -> None:
    """Do what is left to do when a run has ended, and for those that ended with it or waited for its end; a
    worker goes on if Morango isn't ready to hear of it, or the database has no time.
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
    """Return True if Celery sends nothing, and carries tasks out where they are sent."""
    return bool(current_app.conf.task_always_eager)


def _send(task: Any, arguments: list[Any], description: str, **options: Any) -> bool:
    """Send a message that the ledger can do without for a while.

    :param description: what Flower shows instead of the arguments
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
            time_limit=None,  # of this process: those of the worker hold
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
    except MemoryError as error:  # which Celery would end the whole worker for
        raise TransientError("The worker has not enough memory.") from error
    except Exception as error:
        with _outages_are_retried():
            failed = completion.fail(run_id, error)
        if failed is not None:
            finish(failed)
        make_printable(error)  # Celery logs it, as it is
        raise


@contextmanager
def _outages_are_retried() -> Iterator[None]:
    try:
        # Django doesn't wrap them when it closes a server's cursor
        with within(current_limits()), connection.wrap_database_errors:
            yield
    except (DatabaseError, InterfaceError) as error:
        if is_transient(error):
            if not connection.in_atomic_block:
                connection.close_if_unusable_or_obsolete()  # or this process's next task would get it too
            make_printable(error)
            raise TransientError(f"The database is not available: {error}") from error
        raise


def _deleted(what: str) -> str:
    text = f"{what} not in the ledger: it was deleted."
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
