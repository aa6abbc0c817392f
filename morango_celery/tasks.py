"""Celery shells around `runs`. Nothing else in this project imports Celery."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from celery import shared_task
from celery.exceptions import SoftTimeLimitExceeded
from celery.signals import worker_ready
from django.db import DatabaseError, InterfaceError
from django.utils import timezone
from kombu.exceptions import OperationalError as BrokerError

from morango_celery.deserialize.sql import is_transient
from morango_celery.errors import RefusedMessageError, TransientError
from morango_celery.models import Batch, Run
from morango_celery.runs import handover
from morango_celery.runs.execute import execute_batch
from morango_celery.runs.producer import Progress, advance, open_batches, start
from morango_celery.runs.recovery import recover

logger = logging.getLogger(__name__)

RETRIED: dict[str, Any] = {
    "autoretry_for": (TransientError,),
    "retry_backoff": 1,
    "retry_backoff_max": 60,
    "retry_jitter": True,
    "max_retries": 10,
}
"""About five minutes; what is not done then is sent again by `recover_runs`."""

HAND_OVER_RETRIES = 60
SEND_RETRIES = {"max_retries": 1, "interval_start": 0.1}


@shared_task(name="morango_celery.start_run", **RETRIED)
def start_run(run_id: int) -> str:
    """Start a run, or let one that stands between two stages go on."""
    with _ledger(_whole_number(run_id, "run_id")):
        progress = start(run_id)
        _follow_up(progress)
    return str(progress.run)


@shared_task(name="morango_celery.deserialize_batch", **RETRIED)
def deserialize_batch(batch_id: int, store_ids: list[str]) -> dict[str, int]:
    """Deserialize one batch; the last one of a stage opens the next.

    :param store_ids: 32-digit hex ids of Store rows, as the ledger's batch has them
    """
    batch = Batch.objects.filter(pk=_whole_number(batch_id, "batch_id")).only("run_id").first()
    if batch is None:
        logger.info("Batch %s is not in the ledger: its run was deleted.", batch_id)
        return {}
    if not isinstance(store_ids, list):
        raise RefusedMessageError(f"store_ids is a list of ids, not {type(store_ids).__name__}.")
    with _ledger(batch.run_id):
        execution = execute_batch(batch_id, store_ids)
        if execution.stage_is_done:
            _follow_up(advance(batch.run_id))
    result = execution.result
    return {name: getattr(result, name) for name in Run.COUNTS} if result else {}


@shared_task(name="morango_celery.hand_over_run", bind=True, max_retries=HAND_OVER_RETRIES)
def hand_over_run(self: Any, run_id: int) -> bool:
    """Tell the transfer session what came of its run, as soon as Morango is ready to hear it."""
    run = Run.objects.get(pk=_whole_number(run_id, "run_id"))
    if not handover.hand_over(run):
        raise self.retry(countdown=min(0.25 * 2**self.request.retries, 10))
    return True


@shared_task(name="morango_celery.recover_runs")
def recover_runs() -> int:
    """Send again what no worker finished in time. Worth scheduling every few minutes."""
    return recover(CeleryDispatch())


@worker_ready.connect
def _recover_at_start(**kwargs: Any) -> None:
    recover_runs.delay()


class CeleryDispatch:
    """Sends messages through Celery; see `morango_celery.runs.recovery.Dispatch`."""

    def start(self, run: Run) -> bool:
        description = f"run {run.pk} of {run.profile}"
        sent = _send(start_run, [run.pk], description)
        Run.objects.filter(pk=run.pk).update(sent_at=timezone.now() if sent else None)
        return sent

    def batch(self, batch: Batch) -> bool:
        description = f"{batch.size} records, run {batch.run_id}, batch {batch.stage}/{batch.number}"
        sent = _send(deserialize_batch, [batch.pk, batch.store_ids], description)
        Batch.objects.filter(pk=batch.pk).update(sent_at=timezone.now() if sent else None)
        return sent


def _follow_up(progress: Progress) -> None:
    """What has to happen after the commit that opened a stage or ended the run."""
    if progress.opened:
        dispatch = CeleryDispatch()
        for batch in open_batches(progress.run):
            if not dispatch.batch(batch):
                break
    elif progress.ended:
        _finish(progress.run)


def _finish(run: Run) -> None:
    if not handover.finish(run):
        _send(hand_over_run, [run.pk], f"run {run.pk}", countdown=0.25)


def _send(task: Any, arguments: list[Any], description: str, **options: Any) -> bool:
    """Send a message that the ledger can do without for a while.

    :param description: what Flower shows instead of the arguments
    :returns: False when the broker can't be reached
    """
    try:
        task.apply_async(
            arguments, argsrepr=f"({description})", retry=True, retry_policy=SEND_RETRIES, **options
        )
    except BrokerError as error:
        logger.error(
            "The broker can't be reached (%s). Nothing is lost: %s is in the ledger, and "
            "recover_runs (task or command) sends it once the broker is back.",
            error,
            description,
        )
        return False
    return True


@contextmanager
def _ledger(run_id: int) -> Iterator[None]:
    """Let transient errors be retried; any other one ends the run, with its reason in the ledger."""
    try:
        yield
    except (RefusedMessageError, Run.DoesNotExist):
        raise
    except SoftTimeLimitExceeded as error:
        raise TransientError("The task took longer than the worker's time limit allows.") from error
    except Exception as error:
        if isinstance(error, DatabaseError | InterfaceError) and is_transient(error):
            raise TransientError(f"The database is not available: {error}") from error
        failed = handover.fail(run_id, error)
        if failed is not None:
            _finish(failed)
        raise


def _whole_number(value: object, name: str) -> int:
    if isinstance(value, bool) or not isinstance(value, int):
        raise RefusedMessageError(f"{name} is a whole number, not {value!r}.")
    return value
