"""Runs without Celery: the same ledger and the same pipeline, in this process."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import closing, suppress

from django.db import DatabaseError, InterfaceError, connection

from morango_celery.conf import settings
from morango_celery.db.dialect import dialect
from morango_celery.errors import RunFailedError
from morango_celery.log_context import bound, get_logger
from morango_celery.models import Batch, Run
from morango_celery.printable import make_printable
from morango_celery.reading.cursors import pages
from morango_celery.runs import completion
from morango_celery.runs.batching import BATCHES_IN_MEMORY
from morango_celery.runs.liveness import shown
from morango_celery.runs.producer import Progress, advance, start
from morango_celery.runs.recovery import end_abandoned
from morango_celery.runs.thread_pool import executed

logger = get_logger(__name__)


def run_in_process(run: Run, on_progress: Callable[[Run], None] | None = None) -> Run:
    """Carry out a pending run from beginning to end.

    It works inside an open transaction, too, as in Django's TestCase. Then nothing is committed, and a
    run that serializes first is refused by Morango on PostgreSQL.

    :param on_progress: called with the run as the ledger has it after each batch
    :raises Exception: the error that stopped the run, if it could not be completed; the ledger has it, too
    :raises RunFailedError: somebody else has ended the run; no batch was begun after that
    """
    with bound(run=run.pk), shown(run.pk):
        _end_others()
        return _carry_out(run, on_progress)


def rehearse(run: Run, on_progress: Callable[[Run], None] | None = None) -> Run:
    """Carry out a pending run inside an open transaction that will be rolled back.

    Nobody is told of its end: there is no transfer session to notify, and no receiver of `run_finished`
    is called.

    :raises: as `run_in_process`
    """
    return _carry_out_stages(run, on_progress).run


def _end_others() -> None:
    """End runs of processes that were killed: without workers, nobody else does.

    In an open transaction this would be undone with it, so the next run does it.
    """
    if connection.in_atomic_block:
        return
    try:
        end_abandoned()
    except Exception as error:  # another run's or its receiver's; it must not keep this run from beginning
        make_printable(error)
        logger.exception("Another run could not be finalized; recover_runs tries it again.")


def _carry_out(run: Run, on_progress: Callable[[Run], None] | None) -> Run:
    try:
        progress = _carry_out_stages(run, on_progress)
        if progress.run.state != Run.State.COMPLETED:
            raise RunFailedError(
                f"Run {run.pk} was ended from elsewhere while it was carried out here: {progress.run.error}"
            )
    except Exception as error:
        with suppress(DatabaseError, InterfaceError):  # recovery ends the run then; the first error says more
            failed = completion.fail(run.pk, error)
            if failed is not None:
                completion.finalize(failed)
        raise
    if progress.ended:
        completion.finalize(progress.run)
    return progress.run


def _carry_out_stages(run: Run, on_progress: Callable[[Run], None] | None) -> Progress:
    progress = start(run.pk)
    while progress.run.is_known and not progress.run.has_ended:
        ended = _carry_out_stage(progress.run, on_progress)
        progress = advance(run.pk) if ended is None else Progress(ended, ended=True)
    return progress


def _carry_out_stage(run: Run, on_progress: Callable[[Run], None] | None) -> Run | None:
    """Execute all batches of a stage; return the run if the last of them has ended it as well."""
    batches = Batch.objects.filter(Batch.may_begin(), run=run, state=Batch.State.OPEN).only("pk")
    ids = (batch.pk for batch in pages(batches, BATCHES_IN_MEMORY))
    with closing(executed(ids, min(_concurrency(), max(run.open_batches, 1)))) as executions:
        for execution in executions:
            if execution.result is None:
                return None  # somebody else has ended the run
            if on_progress is not None:
                on_progress(Run.objects.get(pk=run.pk))
            if execution.ended:
                return execution.run
    return None


def _concurrency() -> int:
    """Return the number of batches to execute at the same time.

    It is 1 in an open transaction, since other connections don't see into that.
    """
    return 1 if dialect().has_one_writer or connection.in_atomic_block else settings.IN_PROCESS_CONCURRENCY
