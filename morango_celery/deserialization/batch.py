"""One batch: ids in, rows written, one transaction of the caller's."""

from __future__ import annotations

import gc
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

from django.db import DatabaseError, connection, transaction
from morango.models.certificates import Filter

from morango_celery.db.dialect import dialect
from morango_celery.db.errors import is_transient
from morango_celery.deserialization.at_once import MAX_RECORDS, AtOnceSink, NotAtOnceError
from morango_celery.deserialization.claim import ClaimedSource
from morango_celery.deserialization.code_edits import CodeEdits, Digests, recording
from morango_celery.deserialization.constraint_checks import check_constraints, strict_check
from morango_celery.deserialization.context import BatchContext
from morango_celery.deserialization.cycles import ClaimCycleMembers
from morango_celery.deserialization.dependency_graph import exclusive_names
from morango_celery.deserialization.exclusive import recognize
from morango_celery.deserialization.issuer import is_systemic
from morango_celery.deserialization.locks import lock_exclusively, take_write_lock
from morango_celery.deserialization.model_code import ModelCodeGuard, UpdatesOtherRows
from morango_celery.deserialization.parse import LoadForeignKeys, OrderTree, Parse, RefuseUnknownModels
from morango_celery.deserialization.require_targets import RequireTargets
from morango_celery.deserialization.sink import AppModelSink, BatchResult
from morango_celery.deserialization.task import drop_tracebacks
from morango_celery.deserialization.validate import Validate
from morango_celery.errors import FatalError
from morango_celery.upstream import share_partitions


def deserialize_batch(
    profile: str,
    store_ids: Sequence[str],
    sync_filter: Filter | None = None,
    *,
    skip_erroring: bool = False,
    strict: bool = False,
    waits: bool = True,
    left_by_others: Callable[[Digests], Digests] = lambda digests: set(),
) -> BatchResult:
    """Deserialize the still dirty records among `store_ids`, inside the caller's transaction.

    :param store_ids: 32-digit hex ids of Store rows of `profile`
    :param sync_filter: reaches the models' ``deserialize()`` and ``clean_fields()``
    :param skip_erroring: whether records in error before this run are left out of it
    :param strict: on SQLite, check all constraints after each write, however long it takes
    :param waits: whether to wait while another batch saves records of exclusive models
    :param left_by_others: tells which of some digests are in `BatchResult.code_edits` of earlier batches of
        the run
    :raises ExclusiveModelsTakenError: another batch does, if this doesn't wait; roll back
    :raises OperationalError, InterfaceError: the database went away; roll back and try again
    :raises DatabaseError: it refuses a statement of ours, see `is_systemic`; roll back
    :raises FatalError: there is no transaction
    Cost: a constant number of statements per model, plus some per record that fails. Everything twice, where
    a small batch can't be written at once; and again, with some per record, if the database refuses a query
    of a model's own ``deserialize()`` or ``clean_fields()``; twice when a ``save()`` is first seen to update
    other rows. If the profile has exclusive models, one
    statement more, and some per record of these.
    Twice: safe; records that are no longer dirty are skipped.
    """
    if not connection.in_atomic_block:
        raise FatalError("A batch is deserialized inside a transaction. Open one with atomic().")
    take_write_lock()
    share_partitions(sync_filter)
    check = strict_check() if strict else check_constraints

    def lock() -> bool:
        return lock_exclusively(profile, store_ids, exclusive_names(profile), waits=waits)

    has_lock = lock()  # before anything that others may wait for

    def attempt(*, at_once: bool = False, savepoints: bool = False) -> BatchResult:
        model_code = ModelCodeGuard(savepoints=savepoints, exclusively=has_lock or dialect().has_one_writer)
        context = BatchContext(profile, sync_filter, skip_erroring, model_code, keeps_answers=at_once)
        edits = CodeEdits(left_by_others)
        sink = (AtOnceSink if at_once else AppModelSink)(context, check)
        with _without_collections(), connection.execute_wrapper(model_code.execute), recording(edits):
            try:
                result = _carry_out(store_ids, context, sink)
                result.code_edits = edits.left_behind()
                return result
            finally:
                context.carriers.clear()  # each knows the context: a circle that only a collection would open

    while True:
        try:
            result = _attempted(attempt, at_once=len(store_ids) <= MAX_RECORDS)
            result.had_exclusive_models = has_lock
            return result
        except UpdatesOtherRows as found:
            recognize(found.model, found.statement)
        has_lock = lock()


def _attempted(attempt: Callable[..., BatchResult], *, at_once: bool) -> BatchResult:
    """Return the result of the first attempt that isn't undone. Each attempt takes more care.

    :param at_once: whether to try first without a savepoint per group, as most batches allow
    """
    for first in (True, False) if at_once else (False,):
        try:
            with transaction.atomic():
                return attempt(at_once=first)
        except NotAtOnceError as error:
            drop_tracebacks(error)
        except DatabaseError as error:
            if is_transient(error) or is_systemic(error):
                raise
            drop_tracebacks(error)
    with transaction.atomic():
        return attempt(savepoints=True)


@contextmanager
def _without_collections() -> Iterator[None]:
    """Spare Python its search for garbage, which goes through all that a batch has made again and again
    and finds nothing; a tenth of a batch's time."""
    if not gc.isenabled():
        yield
        return
    gc.disable()
    try:
        yield
    finally:
        gc.enable()


def _carry_out(store_ids: Sequence[str], context: BatchContext, sink: AppModelSink) -> BatchResult:
    pipeline = (
        ClaimedSource(store_ids, context)
        .pipe(RefuseUnknownModels())
        .pipe(Parse(context))
        .pipe(LoadForeignKeys(context))
        .pipe(RequireTargets(context))
        .pipe(ClaimCycleMembers(context))
        .pipe(OrderTree(context))
        .pipe(Validate(context))
    )
    pipeline.end(sink)
    return sink.result
