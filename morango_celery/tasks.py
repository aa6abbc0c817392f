"""Celery tasks: shells around `runs`. The sender has `messaging` below them, the consumer `worker`."""

from __future__ import annotations

from typing import Any

from celery import shared_task
from celery.contrib.django.task import DjangoTask

from morango_celery.comparison import shadow
from morango_celery.errors import TransientError
from morango_celery.log_context import bound, get_logger
from morango_celery.messaging import task_names
from morango_celery.messaging.comparisons import send_next_comparison
from morango_celery.messaging.dispatch import CeleryDispatch
from morango_celery.messaging.events import DescribedTask
from morango_celery.messaging.run_end import notify_again_in_seconds
from morango_celery.models import Batch, Run
from morango_celery.runs import attempts, completion, opening
from morango_celery.runs.pruning import prune_as_configured
from morango_celery.runs.recovery import recover
from morango_celery.runs.workers import note_worker
from morango_celery.worker import bootsteps, run_steps  # noqa: F401  (the bootsteps connect themselves)
from morango_celery.worker.guards import (
    checks_arguments,
    errors_end_run,
    outages_are_retried,
    require_id,
    require_sha256,
)
from morango_celery.worker.task_context import Expected, message_of, out_of_reach_of_models

logger = get_logger(__name__)

NOTIFY_RETRIES = 10
"""Retries for a minute; after that, `recover_runs` looks at the session."""

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


class LedgerTask(Expected, DescribedTask, DjangoTask):
    abstract = True


class BatchTask(Expected, DescribedTask, DjangoTask):
    abstract = True


@shared_task(
    name=task_names.START_RUN,
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
    try:
        with bound(run=require_id(run_id, "run_id")), errors_end_run(run_id):
            return run_steps.start_or_continue(run_id, message_of(self.request))
    except Run.DoesNotExist:
        return _deleted(f"Run {run_id} is")


@shared_task(
    name=task_names.DESERIALIZE_BATCH,
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
    require_id(batch_id, "batch_id")
    require_sha256(ids_sha256)
    with outages_are_retried():
        batch = Batch.objects.filter(pk=batch_id).only("run_id").first()
    if batch is None:
        _deleted(f"Batch {batch_id} is")
        return {}
    try:
        with bound(run=batch.run_id), errors_end_run(batch.run_id):
            execution = run_steps.execute(batch_id, batch.run_id, ids_sha256, message_of(self.request))
    except Run.DoesNotExist:
        _deleted(f"Run {batch.run_id} is")
        return {}
    result = execution.result
    return {name: getattr(result, name) for name in Run.COUNTS} if result else {}


@shared_task(
    name=task_names.NOTIFY_SESSION,
    base=LedgerTask,
    bind=True,
    **{**RETRIED, "max_retries": NOTIFY_RETRIES},
)
@checks_arguments
def notify_session(self: Any, run_id: int) -> bool:
    """Finalize an ended run, and notify its transfer session until the outcome has stayed in place.

    Morango may not be ready for the outcome yet, or overwrite it. A device may stay away for longer than the
    retries last; `recover_runs` looks at its session then.

    :returns: False if the run was deleted, or hasn't ended, or its session is left to `recover_runs`
    """
    with bound(run=require_id(run_id, "run_id")), outages_are_retried():
        run = Run.objects.filter(pk=run_id).first()
        done = completion.finalize(run) if run is not None and run.has_ended else None
    if done is None:
        if run is None:
            _deleted(f"Run {run_id} is")
        return False
    if not done.resolved and self.request.retries < NOTIFY_RETRIES:
        raise self.retry(countdown=notify_again_in_seconds(done, self.request.retries))
    return bool(done.resolved)


@shared_task(name=task_names.RECOVER_RUNS, base=LedgerTask, bind=True, **RETRIED)
@checks_arguments
def recover_runs(self: Any) -> int:
    """Send messages again for unfinished work, and note that this worker lives.

    Every worker asks for this once a minute by default.
    """
    with outages_are_retried():
        if self.request.hostname:
            note_worker(self.request.hostname)
        sent = recover(CeleryDispatch()) + send_next_comparison()
        prune_as_configured()
        return sent


@shared_task(name=task_names.COMPARE_SYNC, base=LedgerTask, **VALIDATED)
@checks_arguments
def compare_sync(comparison_id: int) -> str:
    """Compare the records of a sync that Morango has deserialized; nothing is kept but the result.

    It isn't retried: recovery ends a comparison that has lost its worker.
    """
    require_id(comparison_id, "comparison_id")
    with out_of_reach_of_models():
        return shadow.carry_out(comparison_id)


def _deleted(subject: str) -> str:
    text = f"{subject} not in the ledger: it was deleted."
    logger.info(text)
    return text
