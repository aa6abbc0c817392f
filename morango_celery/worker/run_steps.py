"""Steps of a run that a worker takes: the attempt at a stage or a batch, and all that follows its commit."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from contextlib import AbstractContextManager
from functools import partial

from morango_celery.messaging.dispatch import CeleryDispatch, ask_for_recovery
from morango_celery.messaging.events import send_progress_event
from morango_celery.messaging.run_end import handle_run_end
from morango_celery.models import Batch, Run
from morango_celery.runs import attempts, completion, opening
from morango_celery.runs.attempts import attempt_batch
from morango_celery.runs.batching import BATCHES_IN_MEMORY, open_batches
from morango_celery.runs.execution import Execution
from morango_celery.runs.message import Message
from morango_celery.runs.opening import attempt_opening, attempt_start
from morango_celery.runs.overdue import note_unsent
from morango_celery.runs.producer import Progress, advance
from morango_celery.stream import chunked
from morango_celery.worker.task_context import out_of_reach_of_models, stop_is_noted


def start_or_continue(run_id: int, message: Message) -> str:
    """Start a run, or go on with one that is between two stages; see the task ``start_run``.

    :returns: the run's progress, as a text for monitors
    :raises Run.DoesNotExist: it was deleted
    """
    with (
        _stop_is_noted(partial(opening.uncount_start_after_signal, run_id, message)),
        out_of_reach_of_models(),
    ):
        progress, execution = attempt_start(run_id, message)
    if execution is None:
        _after_commit(progress)
    else:
        _after_batch(run_id, execution, message)
        if execution.run is not None:
            return execution.run.progress_text
    run = progress.run
    return (
        f"stage {run.stage} opened: {run.stage_batches} x {run.stage_models}" if progress.opened else str(run)
    )


def execute(batch_id: int, run_id: int, ids_sha256: str, message: Message) -> Execution:
    """Attempt a batch of a run, and take the next steps; see the task ``deserialize_batch``.

    :raises Run.DoesNotExist: it was deleted
    """
    with (
        _stop_is_noted(partial(attempts.uncount_after_signal, batch_id, message)),
        out_of_reach_of_models(),
    ):
        execution = attempt_batch(batch_id, ids_sha256, message, ends_run=True)
    _after_batch(run_id, execution, message)
    return execution


def _after_commit(progress: Progress) -> None:
    """Send the batches of the stage that was opened, or handle the end of the run, after the commit."""
    run = progress.run
    if progress.opened:
        unsent = Batch.objects.filter(run=run, state=Batch.State.OPEN, sent_at=None)
        with _stop_is_noted(lambda: note_unsent(unsent)):
            _send_batches(open_batches(run))
    elif progress.ended:
        _after_end(run)


def _after_batch(run_id: int, execution: Execution, message: Message) -> None:
    """Take the next steps after the commit that executed a batch, split it or gave it up.

    They are to send batches, to handle the end of the run, or to open its next stage.
    """
    if execution.batches_to_send:
        found = Batch.objects.select_related("run").defer("ids_json").in_bulk(execution.batches_to_send)
        _send_batches(found[pk] for pk in execution.batches_to_send if pk in found)
    if execution.ended and execution.run:
        _after_end(execution.run)
    elif execution.stage_is_done:
        with _stop_is_noted(lambda: opening.uncount_after_signal(run_id)):
            progress = attempt_opening(run_id, lambda run: advance(run.pk), message)
        _after_commit(progress)
    elif execution.run:
        send_progress_event(execution.run)


def _after_end(run: Run) -> None:
    with _stop_is_noted(lambda: completion.uncount_attempt(run)):
        handle_run_end(run)


def _send_batches(batches: Iterable[Batch]) -> None:
    for page in chunked(batches, BATCHES_IN_MEMORY):
        if CeleryDispatch().batches(page) < len(page):
            break


def _stop_is_noted(note_stop: Callable[[], None]) -> AbstractContextManager[None]:
    return stop_is_noted(note_stop, lambda: ask_for_recovery("what was stopped"))
