"""A run without Celery: the same ledger and the same pipeline, in this process."""

from __future__ import annotations

from collections.abc import Callable, Iterator

from morango_celery.errors import RunFailedError
from morango_celery.models import Batch, Run
from morango_celery.runs import handover
from morango_celery.runs.execute import execute_batch
from morango_celery.runs.producer import BATCHES_IN_MEMORY, advance, start


def run_in_process(run: Run, on_progress: Callable[[Run], None] | None = None) -> Run:
    """Carry out a pending run from beginning to end.

    :param on_progress: called with the run as the ledger has it after each batch

    Works inside an open transaction too, as in Django's TestCase; then nothing is committed, and a
    run that serializes first is refused by Morango on PostgreSQL.

    :raises Exception: what stopped the run, when it could not be completed; it is recorded
    :raises RunFailedError: somebody else has ended the run; no batch was begun after that
    """
    try:
        progress = start(run.pk)
        while not progress.run.is_finished:
            for batch_id in _open_batch_ids(run):
                if execute_batch(batch_id).result is None:
                    break  # somebody else has ended the run
                if on_progress is not None:
                    on_progress(Run.objects.get(pk=run.pk))
            progress = advance(run.pk)
        if progress.run.state != Run.State.COMPLETED:
            raise RunFailedError(
                f"Run {run.pk} was ended from elsewhere while it was carried out here: {progress.run.error}"
            )
    except Exception as error:
        failed = handover.fail(run.pk, error)
        if failed is not None:
            handover.finish(failed)
        raise
    if progress.ended:
        handover.finish(progress.run)
    return progress.run


def _open_batch_ids(run: Run) -> Iterator[int]:
    """The open batches, until there is none; whoever asks for one more has executed those before it."""
    open_batches = Batch.objects.filter(run=run, state=Batch.State.OPEN).order_by("pk")
    while found := list(open_batches.values_list("pk", flat=True)[:BATCHES_IN_MEMORY]):
        yield from found
