"""End of the pipeline: app rows, Store rows and errors are written, group by group."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

from django.db import transaction
from morango.models.core import DeletedModels, HardDeletedModels
from typing_extensions import override

from morango_celery.deserialization import code_edits
from morango_celery.deserialization.common_cause import CommonCause
from morango_celery.deserialization.constraint_checks import check_constraints
from morango_celery.deserialization.context import BatchContext
from morango_celery.deserialization.deleting import delete_rows
from morango_celery.deserialization.error_text import error_text
from morango_celery.deserialization.failures import Failures
from morango_celery.deserialization.groups import Group, mark_local_edits
from morango_celery.deserialization.issuer import is_no_records_fault
from morango_celery.deserialization.outcome import DeserializeOutcome
from morango_celery.deserialization.sql import mark_processed
from morango_celery.deserialization.task import DeserializeTask
from morango_celery.deserialization.writing import GroupWriter, bisect
from morango_celery.stream import Sink
from morango_celery.upstream import exception_path


@dataclass
class BatchResult:
    """Counts and notes about a batch's records."""

    saved: int = 0
    deleted: int = 0
    propagated: int = 0
    """Records that refer to a deleted one; not saved, noted for the next serialization."""
    conflicted: int = 0
    """Records that conflicted with a local edit; dirty until the next serialization merges them."""
    failed: int = 0
    retryable_ids: list[str] = field(default_factory=list)
    """Ids of the failed records that may succeed once others have been saved."""
    code_edits: list[str] = field(default_factory=list)
    """Digests of rows that models' code has left dirty, and that have a record still to come."""
    common_cause: str = ""
    """Error of every single record, if they all share one that isn't about their contents."""
    had_exclusive_models: bool = False
    """True if other batches with records of exclusive models could not be executed meanwhile."""
    failures: Failures = field(default_factory=Failures, compare=False)

    @property
    def records(self) -> int:
        return self.saved + self.deleted + self.propagated + self.conflicted + self.failed


class AppModelSink(Sink[Group]):
    """Writer of groups, in few statements each. Where one fails, it finds the records that are to blame.

    Must be used inside a transaction. A group is written before the next one is parsed, so that later groups
    find the rows of earlier ones.
    """

    def __init__(
        self, context: BatchContext, check_constraints: Callable[[], None] = check_constraints
    ) -> None:
        self.context = context
        self.check_constraints = check_constraints
        self.result = BatchResult()
        self._returned: list[tuple[str, str | None, str | None]] = []
        self._cause = CommonCause()
        self._noted: dict[DeserializeOutcome, dict[str, str]] = {
            DeserializeOutcome.PROPAGATE_DELETE: {},
            DeserializeOutcome.PROPAGATE_HARD_DELETE: {},
        }

    @override
    def consume(self, item: Group) -> None:
        self._delete([carrier for carrier in item if carrier.store.deleted and not carrier.errors])
        self._write(item)
        self._count(item)
        self.context.end_group()

    def _write(self, group: Group) -> None:
        GroupWriter(self.context, group, self.check_constraints).write()

    def _delete(self, carriers: Group) -> None:
        if not carriers:
            return
        model = carriers[0].model
        same = [carrier for carrier in carriers if carrier.model is model]
        try:
            with code_edits.current().undone_on_error(), transaction.atomic():
                skipped_ids = delete_rows(model, [carrier.store.id for carrier in same])
                self.check_constraints()
        except Exception as error:
            if is_no_records_fault(error):
                raise
            if len(same) == 1:
                same[0].add_error(error, is_retryable=True)
            else:
                for half in bisect(same):
                    self._delete(half)
        else:
            mark_local_edits(same, skipped_ids)
        self._delete([carrier for carrier in carriers if carrier.model is not model])

    def _count(self, group: Group) -> None:
        for carrier in group:
            if carrier.errors or carrier.has_local_edit or carrier.propagated_deletion is not None:
                self._count_unsaved(carrier)
            elif carrier.store.deleted:
                self.result.deleted += 1
            else:
                self.result.saved += 1

    def _count_unsaved(self, carrier: DeserializeTask) -> None:
        store = carrier.store
        if carrier.from_other_batch and (carrier.has_errors or carrier.has_local_edit):
            self._returned.append((store.id, None, None))
            return
        if carrier.propagated_deletion is not None:
            self._noted[carrier.propagated_deletion][store.id] = store.profile
        if carrier.has_errors:
            self._return(carrier)
            self.result.failed += 1
        elif carrier.has_local_edit:
            self._returned.append((store.id, None, None))
            self.result.conflicted += 1
        else:
            self.result.propagated += 1

    def _return(self, carrier: DeserializeTask) -> None:
        error = carrier.errors[-1]
        text = error_text(error, carrier.store, carrier.model if carrier.has_model else None)
        exception = exception_path(error)[:255]
        self._returned.append((carrier.store.id, text, exception))
        self.result.failures.add(carrier.store.id, carrier.store.model_name, exception, text)
        self._cause.add(carrier, text)
        if carrier.is_retryable:
            self.result.retryable_ids.append(carrier.store.id)

    @override
    def finalize(self) -> None:
        if self.result.failed == self.result.records:
            self.result.common_cause = self._cause.text
        mark_processed(self.context.carriers, self._returned)
        hard = self._noted[DeserializeOutcome.PROPAGATE_HARD_DELETE]
        for table, noted in (
            (DeletedModels, {**self._noted[DeserializeOutcome.PROPAGATE_DELETE], **hard}),
            (HardDeletedModels, hard),
        ):
            if noted:
                rows = [table(id=store_id, profile=profile) for store_id, profile in sorted(noted.items())]
                table.objects.bulk_create(rows, ignore_conflicts=True)
