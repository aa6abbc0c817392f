"""The end of the pipeline: app rows, Store rows and errors are written, group by group."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from django.db import DatabaseError, InterfaceError, transaction
from morango.models.core import DeletedModels, HardDeletedModels

from morango_celery.deserialize import sql
from morango_celery.deserialize.deleting import delete_rows
from morango_celery.deserialize.foreign_keys import ForeignKeyCache
from morango_celery.deserialize.saving import OwnCodeError, key_of, write_alone, write_together
from morango_celery.deserialize.task import DeserializeTask, Outcome
from morango_celery.deserialize.traits import Way, traits_of
from morango_celery.deserialize.transforms import Group, dirty_parent, rebuild
from morango_celery.stream import Sink
from morango_celery.upstream import deserialization_log, exception_path


@dataclass
class BatchResult:
    """What became of a batch's records."""

    saved: int = 0
    deleted: int = 0
    spread: int = 0
    """Records that refer to a deleted one; not saved, noted for the next serialization."""
    yielded: int = 0
    """Records that gave way to a local edit; dirty until the next serialization merges them."""
    failed: int = 0
    retry_ids: list[str] = field(default_factory=list)
    """Ids of the failed records that may succeed once others have been saved."""

    @property
    def records(self) -> int:
        return self.saved + self.deleted + self.spread + self.yielded + self.failed


class AppModelSink(Sink[Group, BatchResult]):
    """Writes each group in few statements; where one fails, finds the records that are to blame.

    Must be used inside a transaction. A group is written before the next one is parsed, so that
    later groups find what earlier ones wrote.
    """

    def __init__(
        self, cache: ForeignKeyCache, check_constraints: Callable[[], None] = sql.check_constraints
    ) -> None:
        self.cache = cache
        self.check_constraints = check_constraints
        self.result = BatchResult()
        self._returned: list[tuple[str, str | None, str | None]] = []
        self._noted: dict[Outcome, dict[str, str]] = {
            Outcome.PROPAGATE_DELETE: {},
            Outcome.PROPAGATE_HARD_DELETE: {},
        }

    def consume(self, item: Group) -> None:
        self._delete([carrier for carrier in item if carrier.outcome is Outcome.DELETE])
        _GroupWriter(self.cache, item, self.check_constraints).write()
        self._count(item)
        self.cache.forget()

    def _delete(self, carriers: Group) -> None:
        if not carriers:
            return
        model = carriers[0].model
        same = [carrier for carrier in carriers if carrier.model is model]
        try:
            with transaction.atomic():
                left_alone = delete_rows(model, [carrier.store.id for carrier in same])
                self.check_constraints()
        except Exception as error:
            if _is_outage(error):
                raise
            if len(same) == 1:
                same[0].fail(error, may_succeed_later=True)
            else:
                for half in _halves(same):
                    self._delete(half)
        else:
            for carrier in same:
                carrier.yielded = carrier.store.id in left_alone
        self._delete([carrier for carrier in carriers if carrier.model is not model])

    def _count(self, group: Group) -> None:
        counts: Counter[Outcome] = Counter()
        for carrier in group:
            store = carrier.store
            if carrier.spread is not None:
                self._noted[carrier.spread][store.id] = store.profile
            if carrier.has_errors:
                self._return(carrier)
            elif carrier.yielded:
                self.result.yielded += 1
                self._returned.append((store.id, None, None))
                continue
            counts[carrier.outcome] += 1
        self.result.saved += counts[Outcome.SAVE]
        self.result.deleted += counts[Outcome.DELETE]
        self.result.spread += counts[Outcome.PROPAGATE_DELETE] + counts[Outcome.PROPAGATE_HARD_DELETE]
        self.result.failed += counts[Outcome.ERROR]

    def _return(self, carrier: DeserializeTask) -> None:
        error = carrier.errors[-1]
        text = str(error).replace("\x00", "\\x00")  # PostgreSQL's text can't hold it
        text = text.encode("utf-8", "backslashreplace").decode("utf-8")
        self._returned.append((carrier.store.id, text, exception_path(error)[:255]))
        if carrier.may_succeed_later:
            self.result.retry_ids.append(carrier.store.id)
        deserialization_log.warning(
            "Failed to deserialize Store record %s for %s: %s",
            carrier.store.id,
            carrier.store.model_name,
            text,
        )

    def finish(self) -> BatchResult:
        sql.return_to_store(self._returned)
        hard = self._noted[Outcome.PROPAGATE_HARD_DELETE]
        for table, noted in (
            (DeletedModels, {**self._noted[Outcome.PROPAGATE_DELETE], **hard}),
            (HardDeletedModels, hard),
        ):
            if noted:
                rows = [table(id=store_id, profile=profile) for store_id, profile in sorted(noted.items())]
                table.objects.bulk_create(rows, ignore_conflicts=True)
        return self.result


class _GroupWriter:
    """Writes the valid records of one group; each that can't be written ends with its error."""

    def __init__(self, cache: ForeignKeyCache, group: Group, check_constraints: Callable[[], None]) -> None:
        self.cache = cache
        self.group = group
        self.check_constraints = check_constraints
        self.alone: Group = []
        """Records that go through their own ``save()`` one by one, after all others."""

    def write(self) -> None:
        carriers = self._writable(self.group)
        one_by_one = {model for model in {c.model for c in carriers} if traits_of(model).way is Way.EACH}
        together = [c for c in carriers if c.model not in one_by_one]
        self.alone = [c for c in carriers if c.model in one_by_one]
        self._write_together(together)
        self._write_alone()

    def _writable(self, carriers: Sequence[DeserializeTask]) -> Group:
        return [c for c in carriers if c.outcome is Outcome.SAVE and c.is_parsed]

    def _write_together(self, carriers: Group) -> None:
        carriers = self._without_waiting_parents(carriers)
        if not carriers:
            return
        try:
            with transaction.atomic():
                left_alone = write_together(carriers)
                self.check_constraints()
        except OwnCodeError as error:
            self.alone.extend(error.refused)
            self._again([carrier for carrier in carriers if carrier not in error.refused])
        except Exception as error:
            if _is_outage(error):
                raise
            if len(carriers) == 1:
                self.alone.extend(carriers)
            else:
                for half in _halves(carriers):
                    self._again(half)
        else:
            if left_alone:
                for carrier in carriers:
                    carrier.yielded = key_of(carrier) in left_alone

    def _again(self, carriers: Group) -> None:
        """Write carriers whose first attempt was rolled back: their ``save()`` may have changed them."""
        for carrier in carriers:
            self._renew(carrier)
        self._write_together(self._writable(carriers))

    def _renew(self, carrier: DeserializeTask) -> None:
        if carrier.app_model is not None and traits_of(carrier.model).follows_relations:
            rebuild(carrier, self.cache)

    def _without_waiting_parents(self, carriers: Group) -> Group:
        """Children of records that are yet to be written alone wait with them."""
        waiting = {id(carrier) for carrier in self.alone}
        if not waiting:
            return carriers
        ready = []
        for carrier in carriers:
            if carrier.parent is not None and id(carrier.parent) in waiting:
                waiting.add(id(carrier))
                self.alone.append(carrier)
            else:
                ready.append(carrier)
        return ready

    def _write_alone(self) -> None:
        """Until none is left or none succeeds: some want others of the same model to be there."""
        position = {id(carrier): index for index, carrier in enumerate(self.group)}
        waiting = sorted(self.alone, key=lambda carrier: position[id(carrier)])
        while waiting:
            failed = [carrier for carrier in waiting if not self._try_alone(carrier)]
            if len(failed) == len(waiting):
                break
            for carrier in failed:
                carrier.errors.clear()
            waiting = failed
        self._fail_descendants()

    def _try_alone(self, carrier: DeserializeTask) -> bool:
        if carrier.parent is not None and carrier.parent.has_errors:
            carrier.fail(dirty_parent(), may_succeed_later=True)
            return False
        rebuild(carrier, self.cache)
        if carrier.has_errors:
            return False
        try:
            with transaction.atomic():
                carrier.yielded = not write_alone(carrier)
                self.check_constraints()
        except Exception as error:
            if _is_outage(error):
                raise
            carrier.fail(error, may_succeed_later=True)
            return False
        return True

    def _fail_descendants(self) -> None:
        for carrier in self.group:  # parents first
            if carrier.parent is not None and carrier.parent.has_errors and not carrier.store.deleted:
                carrier.errors.clear()
                carrier.fail(dirty_parent(), may_succeed_later=True)


def _is_outage(error: Exception) -> bool:
    return isinstance(error, DatabaseError | InterfaceError) and sql.is_transient(error)


def _halves(carriers: Group) -> tuple[Group, Group]:
    middle = len(carriers) // 2
    return carriers[:middle], carriers[middle:]
