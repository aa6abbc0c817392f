"""Application of changes: together while that works, and faulty ones alone."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence, Set
from dataclasses import dataclass, field

from django.db import DatabaseError, InterfaceError, transaction
from django.db.models import Model

from morango_celery.db.errors import is_infrastructure_error, may_be_the_records_fault
from morango_celery.deserialization.writing import bisect
from morango_celery.errors import RecordError
from morango_celery.oplog.lines import Change, Operation, printable
from morango_celery.oplog.object_names import name_of
from morango_celery.oplog.relations import missing_targets, require_targets
from morango_celery.oplog.rows import ObjectRow, Table, ingested_models, require_ingested, table_of
from morango_celery.oplog.unit_of_work import UnitOfWork

MAX_REASON_CHARACTERS = 4000
MAX_ALONE = 100
"""Number of objects of one change that are written one by one, to find the faulty one among them."""


@dataclass
class Failure:
    """A change that couldn't be applied."""

    change: Change
    reason: str
    missing_object: str = ""
    """Name of a missing object that the change refers to; see `missing_names`."""
    outdated_for: set[str] = field(default_factory=set)
    """Names of its objects to which a later change was applied."""


@dataclass
class ChangeApplier:
    """Applier of changes in their order, in the open transaction."""

    check_strictly: Callable[[], None] = lambda: None
    """Check of all references in the database; see `strict_check` of `constraint_checks`."""
    models: Set[type[Model]] = field(default_factory=ingested_models)
    """The ingested concrete models."""
    blames_lines: bool = False
    """True if a timeout or a lack of memory is blamed on the line that causes it."""
    applied: list[Change] = field(default_factory=list)
    """Changes that `apply` has applied; out of order, if some failed."""
    failures: list[Failure] = field(default_factory=list)

    def apply(self, changes: Sequence[Change]) -> None:
        """Apply changes, and collect those that fail in `failures`.

        :raises DatabaseError, InterfaceError, MemoryError: not known to be a change's fault; roll back
        """
        self._apply([change for change in changes if not self._refuses(change)])
        if not self.failures:
            return
        place = {id(change): number for number, change in enumerate(changes)}
        last: dict[str, int] = {}
        for change in self.applied:
            for name in names(change):
                last[name] = max(last.get(name, -1), place[id(change)])
        for failure in self.failures:
            change = failure.change
            failure.outdated_for = {name for name in names(change) if last.get(name, -1) > place[id(change)]}

    def try_alone(self, change: Change) -> Failure | None:
        """Apply one change by Django's own code; a large one in bulk, down to the faulty objects.

        :returns: None on success
        """
        try:
            with transaction.atomic():
                work = UnitOfWork(self.models)
                self._write_part(work, change)
                self._complete(work)
        except Exception as error:  # any error of a field, a model or the database is the change's
            if self._is_infrastructure_error(error):
                raise
            return Failure(change, reason_of(error), _first_missing_object(change))
        return None

    def try_together(self, changes: Iterable[Change]) -> bool:
        """Apply changes that depend on each other, all or none.

        :returns: True on success
        """
        try:
            self._write(changes)
        except Exception as error:  # each has its reason noted already
            if self._is_infrastructure_error(error):
                raise
            return False
        return True

    def _refuses(self, change: Change) -> bool:
        """Record a failure and return True if a change has an object of a model that isn't ingested."""
        try:
            for data in change.objects:
                require_ingested(table_of(data["model"]), self.models)
        except RecordError as error:
            self.failures.append(Failure(change, reason_of(error)))
            return True
        return False

    def _apply(self, changes: Sequence[Change]) -> None:
        if not changes:
            return
        if len(changes) == 1:
            failure = self.try_alone(changes[0])
            if failure is None:
                self.applied.append(changes[0])
            else:
                self.failures.append(failure)
            return
        try:
            self._write(changes)
        except Exception as error:  # bisection finds the faulty ones
            if self._is_infrastructure_error(error):
                raise
            for half in bisect(list(changes)):
                self._apply(half)
        else:
            self.applied.extend(changes)

    def _is_infrastructure_error(self, error: Exception) -> bool:
        return is_infrastructure_error(error) and not (self.blames_lines and may_be_a_lines_fault(error))

    def _write(self, changes: Iterable[Change]) -> None:
        with transaction.atomic():
            work = UnitOfWork(self.models)
            for change in changes:
                work.add(change)
            self._complete(work)

    def _write_part(self, work: UnitOfWork, part: Change) -> None:
        """Write objects of one change: in bulk, then by halves, and at last each by Django's own code.

        :param work: takes the written objects over; it has nothing left to write
        :raises Exception: any error of Django's code about an object; roll back
        Cost: of `n` objects with one at fault, that of bulk twice, and `MAX_ALONE` saves.
        """
        is_small = len(part.objects) <= MAX_ALONE
        try:
            with transaction.atomic(savepoint=not is_small):
                part_of_work = UnitOfWork(self.models, alone=is_small)
                part_of_work.add(part)
                part_of_work.flush()
        except Exception as error:  # bisection finds the faulty object
            if is_small or self._is_infrastructure_error(error):
                raise
            for half in bisect(part.objects):
                self._write_part(work, part._replace(objects=half))
        else:
            work.take(part_of_work)

    def _complete(self, work: UnitOfWork) -> None:
        work.complete()
        require_targets(_by_table(work))
        self.check_strictly()


def _by_table(work: UnitOfWork) -> list[tuple[Table, list[ObjectRow]]]:
    groups: dict[object, tuple[Table, list[ObjectRow]]] = {}
    for (model, _), row in work.written.items():
        groups.setdefault(model, (table_of(model._meta.label), []))[1].append(row)
    return list(groups.values())


def names(change: Change) -> set[str]:
    """Return the names of a change's objects, without those that have none."""
    return {name_of(data) for data in change.objects} - {""}


def may_be_a_lines_fault(error: BaseException) -> bool:
    """Return True if one line may have caused the outage, and would cause it again."""
    if isinstance(error, DatabaseError | InterfaceError):
        return may_be_the_records_fault(error)
    return isinstance(error, MemoryError)


def reason_of(error: Exception) -> str:
    """Return the reason for a dead letter: the kind of the error, and its message, cut to a bounded size."""
    try:
        message = str(error).strip()
    except Exception as own:  # of a value that can't be shown, or of somebody's class
        message = f"its message can't be shown ({type(own).__name__})"
    reason = printable(f"{type(error).__name__}: {message}")
    return reason if len(reason) <= MAX_REASON_CHARACTERS else f"{reason[:MAX_REASON_CHARACTERS]} [...]"


def missing_names(change: Change) -> list[str]:
    """Return the names of missing objects that a change refers to, without its own objects."""
    if change.operation is Operation.DELETE:
        return []
    try:
        with transaction.atomic():
            found = list(missing_targets(change.objects))
    except Exception as error:  # its values are too wrong to be looked up
        if is_infrastructure_error(error) and not may_be_a_lines_fault(error):
            raise
        return []
    own = names(change)
    return [name for name in found if name not in own]


def _first_missing_object(change: Change) -> str:
    return next(iter(missing_names(change)), "")
