"""Applying changes: together while that works, and each culprit alone."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from django.db import transaction

from morango_celery.deserialize.writing import halves, is_outage
from morango_celery.oplog.lines import Change, Operation, printable
from morango_celery.oplog.pending import Pending
from morango_celery.oplog.relations import missing_targets, require_targets
from morango_celery.oplog.rows import ObjectRow, Table, name_of, table_of


@dataclass
class Failure:
    """A change that couldn't be applied."""

    change: Change
    reason: str
    waits_for: str = ""
    """What it refers to and isn't there; see `missing_names`."""
    outdated_for: set[str] = field(default_factory=set)
    """Names of its objects that a later change was applied to."""


@dataclass
class Applying:
    """Applies changes in their order, in the open transaction."""

    check_strictly: Callable[[], None] = lambda: None
    """Checks all references of the database; see `morango_celery.deserialize.sql.strict_check`."""
    applied: list[Change] = field(default_factory=list)
    """Not in their order, if some failed."""
    failures: list[Failure] = field(default_factory=list)

    def apply(self, changes: Sequence[Change]) -> None:
        """:raises DatabaseError, InterfaceError, MemoryError: not the changes' fault; roll back"""
        self._apply(changes)
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
        """Apply one change by Django's own code.

        :returns: None on success
        """
        try:
            self._write([change], alone=True)
        except Exception as error:  # whatever a field, a model or the database has against it is its error
            if is_outage(error):
                raise
            return Failure(change, reason_of(error), _what_it_waits_for(change))
        self.applied.append(change)
        return None

    def try_together(self, changes: Sequence[Change]) -> bool:
        """Apply changes that can't do without each other; all or none.

        :returns: whether that worked
        """
        try:
            self._write(changes)
        except Exception as error:  # each has its reason noted already
            if is_outage(error):
                raise
            return False
        self.applied.extend(changes)
        return True

    def _apply(self, changes: Sequence[Change]) -> None:
        if not changes:
            return
        if len(changes) == 1:
            failure = self.try_alone(changes[0])
            if failure is not None:
                self.failures.append(failure)
            return
        try:
            self._write(changes)
        except Exception as error:  # those whose fault it is are found by halving
            if is_outage(error):
                raise
            for half in halves(list(changes)):
                self._apply(half)
        else:
            self.applied.extend(changes)

    def _write(self, changes: Sequence[Change], alone: bool = False) -> None:
        with transaction.atomic():
            pending = Pending(alone)
            for change in changes:
                pending.add(change)
            pending.finish()
            require_targets(_by_table(pending))
            self.check_strictly()


def _by_table(pending: Pending) -> list[tuple[Table, list[ObjectRow]]]:
    groups: dict[object, tuple[Table, list[ObjectRow]]] = {}
    for (model, _), row in pending.written.items():
        groups.setdefault(model, (table_of(model._meta.label), []))[1].append(row)
    return list(groups.values())


def names(change: Change) -> set[str]:
    """The names of its objects, but for those that have none."""
    return {name_of(data) for data in change.objects} - {""}


def reason_of(error: Exception) -> str:
    """What a dead letter says: the kind of the error, and its message."""
    return printable(f"{type(error).__name__}: {str(error).strip()}")


def missing_names(change: Change) -> list[str]:
    """What its objects refer to and isn't there, but for each other."""
    if change.operation is Operation.DELETE:
        return []
    try:
        with transaction.atomic():
            found = [
                name for data in change.objects for name in missing_targets(table_of(data["model"]), data)
            ]
    except Exception as error:  # its values are so wrong that nothing can be looked up
        if is_outage(error):
            raise
        return []
    return [name for name in found if name not in names(change)]


def _what_it_waits_for(change: Change) -> str:
    return next(iter(missing_names(change)), "")
