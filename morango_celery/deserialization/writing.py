"""Writing one group: together while that works, and each culprit alone."""

from __future__ import annotations

from collections.abc import Callable
from itertools import chain
from typing import TypeVar

from django.db import transaction
from morango.models.core import SyncableModel

from morango_celery.deserialization.context import BatchContext
from morango_celery.deserialization.cycles import strongly_connected
from morango_celery.deserialization.dependency_graph import cyclic_foreign_keys
from morango_celery.deserialization.groups import Group, dirty_parent, mark_local_edits, writable
from morango_celery.deserialization.issuer import is_no_records_fault
from morango_celery.deserialization.one_by_one import OneByOne, rebuild_if_changed
from morango_celery.deserialization.parsed import Instance
from morango_celery.deserialization.saving import ModelCodeError, write_together
from morango_celery.deserialization.task import DeserializeTask
from morango_celery.deserialization.traits import WriteStrategy, traits_of
from morango_celery.deserialization.unique_conflicts import find_conflicting
from morango_celery.deserialization.validate import Validate

Item = TypeVar("Item")

WORTH_ANOTHER_TIME = 10
"""Number of rejected records that one written record has to stand against, to have them tried together
again."""


class GroupWriter:
    """Writer of the valid records of one group. Each that can't be written ends with its error."""

    def __init__(self, context: BatchContext, group: Group, check_constraints: Callable[[], None]) -> None:
        self.context = context
        self.group = group
        self.check_constraints = check_constraints
        self.revalidate = Validate(context).parse_and_validate
        self.alone: Group = []
        """Records that are written one by one, after all others."""
        self.conflicting: set[DeserializeTask] = set()
        """Records among them that claim a unique value of another row. The rest have their own ``save()``."""
        self.untried: dict[DeserializeTask, SyncableModel] = {}
        """Instances of carriers among them that no ``save()`` has had yet: they are as they were
        validated."""

    def write(self) -> None:
        carriers = writable(self.group)
        self.context.required_rows.look_up(carriers)
        one_by_one = {
            model
            for model in {c.model for c in carriers}
            if traits_of(model).write_strategy is WriteStrategy.INDIVIDUAL
        }
        together = [c for c in carriers if c.model not in one_by_one]
        self.alone = [c for c in carriers if c.model in one_by_one]
        self.untried = {
            c: c.parsed.app_model
            for c in self.alone
            if isinstance(c.parsed, Instance) and not traits_of(c.model).in_tree
        }
        self._write_together(self._without_conflicting(together))
        self._write_alone()

    def _write_together(self, carriers: Group) -> None:
        carriers = self._without_waiting_parents(carriers)
        if not carriers:
            return
        try:
            with self.context.undone_on_error(carriers), transaction.atomic():
                skipped_ids = write_together(carriers, self.context, self.revalidate)
                self.check_constraints()
        except ModelCodeError as error:
            rejected = {id(carrier) for carrier in error.rejected}
            others = [carrier for carrier in carriers if id(carrier) not in rejected]
            self._retry(others)
            self._retry_rejected(list(error.rejected), after=others)
        except Exception as error:  # a model's own code may raise anything, and a record is to blame
            if is_no_records_fault(error):
                raise
            units = self._units(carriers)
            if len(units) == 1:
                self.alone.extend(carriers)
            else:
                for half in bisect(units):
                    self._retry(list(chain.from_iterable(half)))
        else:
            if skipped_ids:
                mark_local_edits(writable(carriers), skipped_ids)

    def _retry_rejected(self, carriers: Group, after: Group) -> None:
        """Write records that their own code rejected before other rows were there.

        They are written together while enough of them succeeds each time, and alone after that.
        """
        if len(after) * WORTH_ANOTHER_TIME < len(carriers):
            self.alone.extend(carriers)
            return
        self.context.reload_absent(carriers)
        for carrier in carriers:
            rebuild_if_changed(carrier, self.context)
        sound = writable(carriers)
        unsound = [carrier for carrier in carriers if carrier.errors]
        for carrier in unsound:
            carrier.errors.clear()
        self.alone.extend(unsound)
        self._write_together(sound)

    def _without_conflicting(self, carriers: Group) -> Group:
        """Return the carriers that claim no unique value of another row, and put the others aside to be
        written alone."""
        self.conflicting = find_conflicting(carriers)
        if not self.conflicting:
            return carriers
        others: Group = []
        for unit in self._units(carriers):
            (others if self.conflicting.isdisjoint(unit) else self.alone).extend(unit)
        return others

    def _retry(self, carriers: Group) -> None:
        """Write carriers again that were rolled back: a ``save()`` may have changed their instances."""
        for carrier in carriers:
            rebuild_if_changed(carrier, self.context)
        self._write_together(writable(carriers))

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

    def _units(self, carriers: Group) -> list[Group]:
        """Return the smallest groups of `carriers` that can be written alone, once those before them have
        been."""
        keys = cyclic_foreign_keys(self.context.profile)
        if any(keys[model] for model in {carrier.model for carrier in carriers}):
            return strongly_connected(carriers)
        return [[carrier] for carrier in carriers]

    def _write_alone(self) -> None:
        alone = {id(carrier) for carrier in self.alone}
        if alone:
            units = self._units([carrier for carrier in self.group if id(carrier) in alone])
            OneByOne(self.context, self.check_constraints, self.conflicting, self.untried).write(units)
        self._fail_descendants()

    def _fail_descendants(self) -> None:
        for carrier in self.group:  # parents first
            if carrier.parent is not None and carrier.parent.has_errors and not carrier.store.deleted:
                carrier.errors.clear()
                carrier.add_error(dirty_parent(), is_retryable=True)


def bisect(items: list[Item]) -> tuple[list[Item], list[Item]]:
    middle = len(items) // 2
    return items[:middle], items[middle:]
