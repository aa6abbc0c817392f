"""Writing the records of a group one by one, and attributing an error to each that can't be written."""

from __future__ import annotations

from collections.abc import Callable
from itertools import chain, groupby
from typing import TypeAlias

from django.db import IntegrityError, transaction
from morango.models.core import SyncableModel

from morango_celery.deserialization.context import BatchContext
from morango_celery.deserialization.cycles import cyclic_reference_ids
from morango_celery.deserialization.groups import Group, dirty_parent, target_failed
from morango_celery.deserialization.issuer import is_no_records_fault
from morango_celery.deserialization.parse import rebuild
from morango_celery.deserialization.parsed import Instance
from morango_celery.deserialization.saving import write_alone, write_together
from morango_celery.deserialization.task import DeserializeTask
from morango_celery.deserialization.traits import traits_of
from morango_celery.deserialization.validate import Validate

Units = list[Group]
"""Carriers that can be written without the others; nearly always one each."""

Instances: TypeAlias = "list[tuple[DeserializeTask, SyncableModel]]"
"""Carriers to save, each with its instance."""


class OneByOne:
    """Writer of units in their order. Each that can't be written ends with its error."""

    def __init__(
        self,
        context: BatchContext,
        check_constraints: Callable[[], None],
        conflicting: set[DeserializeTask],
        untried: dict[DeserializeTask, SyncableModel],
    ) -> None:
        """:param conflicting: carriers that claim a unique value of another row; the rest by their own
        ``save()``
        :param untried: instances of carriers that no ``save()`` has had yet: they are as they were validated
        """
        self.context = context
        self.check_constraints = check_constraints
        self.conflicting = conflicting
        self.untried = untried
        self.revalidate = Validate(context).parse_and_validate

    def write(self, units: Units) -> None:
        """Write until none is left or none succeeds: some want others of the same model to be there."""
        while units:
            failed = self._try_all(units)
            if len(failed) == len(units):
                break
            for carrier in chain.from_iterable(failed):
                carrier.errors.clear()
            units = failed

    def save_all(self, units: Units) -> bool:
        """Save units in their order, in the caller's savepoint.

        :returns: False if there is one that isn't valid, or not yet; roll back
        :raises Exception: anything that a model or the database raises; roll back
        """
        for unit in units:
            instances = self._instances(unit)
            if instances is None:
                return False
            for carrier, app_model in instances:
                self._save(carrier, app_model)
        return True

    def _try_all(self, units: Units) -> Units:
        """Write units in their order, if they can be.

        :returns: those that failed, with their errors
        """
        failed: Units = []
        for is_exclusive, same in groupby(units, key=_is_exclusive):
            if is_exclusive:
                failed += self._try_in_turn(list(same))
            else:
                failed += [unit for unit in same if not self._try_alone(unit)]
        return failed

    def _try_in_turn(self, units: Units) -> Units:
        """Write exclusive units in their order; those between two failures share a savepoint.

        :returns: those that failed, with their errors
        """
        failed: Units = []
        while len(units) > 1:
            place, unsound = self._save_in_turn(units)
            if place == len(units):
                return failed + unsound
            failed += self._try_in_turn(units[:place])
            failed += self._try_in_turn(units[place : place + 1])
            units = units[place + 1 :]
        return failed + [unit for unit in units if not self._try_alone(unit)]

    def _save_in_turn(self, units: Units) -> tuple[int, Units]:
        """Save units in one savepoint; nothing is saved if there is an error.

        :returns: the place of the unit that it is about, or a guess, and nothing; or, without an error, the
            number of units, and those that aren't valid
        """
        unsound: Units = []
        carriers = list(chain.from_iterable(units))
        place = 0
        try:
            with self.context.undone_on_error(carriers), transaction.atomic():
                for place, unit in enumerate(units):  # noqa: B007  (an error says how far this came)
                    instances = self._instances(unit)
                    if instances is None:
                        unsound.append(unit)
                    for carrier, app_model in instances or ():
                        self._save(carrier, app_model)
                place = len(units) // 2
                self.check_constraints()
        except Exception as error:  # a model's own code may raise anything, and a record is to blame
            if is_no_records_fault(error):
                raise
            for carrier in carriers:
                carrier.errors.clear()
                carrier.has_local_edit = False
            return place, []
        return len(units), unsound

    def _try_alone(self, unit: Group) -> bool:
        if len(unit) == 1 and unit[0] in self.conflicting:
            success = self._try_conflicting(unit[0])
            if success is not None:
                return success
        instances = self._instances(unit)
        return instances is not None and self._try_to_save(unit, instances)

    def _try_conflicting(self, carrier: DeserializeTask) -> bool | None:
        """Write it as a group of its own: the database says the same of it, in a fraction of the time.

        :returns: None if something else than the database's constraints is against it
        """
        if not self._may_be_tried(carrier):
            return False
        rebuild_if_changed(carrier, self.context)
        if carrier.errors:
            return False
        try:
            with self.context.undone_on_error([carrier]), transaction.atomic():
                carrier.has_local_edit = bool(write_together([carrier], self.context, self.revalidate))
                self.check_constraints()
        except IntegrityError as error:
            carrier.add_error(error, is_retryable=True)
            return False
        except Exception as error:  # a model's own code may raise anything, and a record is to blame
            if is_no_records_fault(error):
                raise
            return None
        return True

    def _instances(self, unit: Group) -> Instances | None:
        """Parse and validate a unit's carriers again, unless their instances are as they were after that.

        :returns: the carriers to save, with their instances; None if not all of the unit are valid
        """
        found = [(carrier, self._instance(carrier)) for carrier in unit]
        sound = [(c, app_model) for c, app_model in found if app_model is not None and not c.has_errors]
        if len(sound) < len(unit):
            valid = {carrier for carrier, _ in sound}
            _blame([carrier for carrier in unit if carrier not in valid], unit)
            return None
        return [(carrier, app_model) for carrier, app_model in sound if carrier.propagated_deletion is None]

    def _instance(self, carrier: DeserializeTask) -> SyncableModel | None:
        if not self._may_be_tried(carrier):
            return None
        if carrier.is_deferred:
            return self.revalidate(carrier)
        if carrier in self.untried:
            app_model = self.untried.pop(carrier)
            self.context.detach(app_model)
            return app_model
        return rebuild(carrier, self.context)

    def _may_be_tried(self, carrier: DeserializeTask) -> bool:
        if carrier.parent is not None and carrier.parent.has_errors:
            carrier.add_error(dirty_parent(), is_retryable=True)
            return False
        for needed in map(self.context.carriers.get, cyclic_reference_ids(carrier)):
            if needed is not None and needed.has_errors:
                carrier.add_error(_failed(needed), is_retryable=True)
                return False
        return True

    def _try_to_save(self, unit: Group, instances: Instances) -> bool:
        culprits = unit
        try:
            with self.context.undone_on_error(unit), transaction.atomic():
                for carrier, app_model in instances:
                    culprits = [carrier]
                    self._save(carrier, app_model)
                culprits = unit
                self.check_constraints()
        except Exception as error:  # a model's own code may raise anything, and a record is to blame
            if is_no_records_fault(error):
                raise
            for carrier in culprits:
                carrier.add_error(error, is_retryable=True)
            _blame(culprits, unit)
            return False
        return True

    def _save(self, carrier: DeserializeTask, app_model: SyncableModel) -> None:
        carrier.has_local_edit = not write_alone(carrier, app_model, self.context)
        self.context.written(carrier)


def rebuild_if_changed(carrier: DeserializeTask, context: BatchContext) -> None:
    """Parse and validate a carrier again, if its model's ``save()`` may have changed it."""
    if carrier.is_deferred:
        carrier.defer()
    elif isinstance(carrier.parsed, Instance) and traits_of(carrier.model).follows_relations:
        rebuild(carrier, context)


def _is_exclusive(unit: Group) -> bool:
    return all(traits_of(carrier.model).exclusive for carrier in unit)


def _blame(culprits: Group, unit: Group) -> None:
    """Let the others of a unit fail with its culprits."""
    for carrier in unit:
        if not carrier.has_errors:
            carrier.add_error(_failed(culprits[0]), is_retryable=True)


def _failed(carrier: DeserializeTask) -> Exception:
    return target_failed(str(carrier.model._meta.verbose_name), carrier.store.id)
