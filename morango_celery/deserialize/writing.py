"""Writing one group: together while that works, and each culprit alone."""

from __future__ import annotations

from collections.abc import Callable
from itertools import chain
from typing import TypeVar

from django.db import DatabaseError, IntegrityError, InterfaceError, transaction

from morango_celery.db.errors import is_transient
from morango_celery.deserialize.foreign_keys import ForeignKeyCache
from morango_celery.deserialize.groups import Group, dirty_parent, target_failed, to_save
from morango_celery.deserialize.issuer import is_systemic
from morango_celery.deserialize.order import mutual_keys
from morango_celery.deserialize.parse import rebuild
from morango_celery.deserialize.partners import inseparable, partner_ids
from morango_celery.deserialize.rivals import rivals
from morango_celery.deserialize.saving import OwnCodeError, write_alone, write_together
from morango_celery.deserialize.task import DeserializeTask
from morango_celery.deserialize.traits import Way, traits_of
from morango_celery.deserialize.validate import Validate

Item = TypeVar("Item")

WORTH_ANOTHER_TIME = 10
"""Of so many records that their own code refuses, one other has to be written for it to be asked again."""


class GroupWriter:
    """Writes the valid records of one group; each that can't be written ends with its error."""

    def __init__(self, cache: ForeignKeyCache, group: Group, check_constraints: Callable[[], None]) -> None:
        self.cache = cache
        self.group = group
        self.check_constraints = check_constraints
        self.validate = Validate(cache)
        self.alone: Group = []
        """Records that are written one by one, after all others."""
        self.rivals: set[DeserializeTask] = set()
        """Those among them that claim a unique value of another row; the rest by their own ``save()``."""

    def write(self) -> None:
        carriers = self._writable(self.group)
        one_by_one = {model for model in {c.model for c in carriers} if traits_of(model).way is Way.EACH}
        together = [c for c in carriers if c.model not in one_by_one]
        self.alone = [c for c in carriers if c.model in one_by_one]
        self._write_together(self._without_rivals(together))
        self._write_alone()

    def _writable(self, carriers: Group) -> Group:
        return [c for c in to_save(carriers) if c.spread is None and (c.is_parsed or c.looked_early)]

    def _write_together(self, carriers: Group) -> None:
        carriers = self._without_waiting_parents(carriers)
        if not carriers:
            return
        try:
            with self.cache.undone_on_error(carriers), transaction.atomic():
                left_alone = write_together(carriers, self.cache, self.validate.again)
                self.check_constraints()
        except OwnCodeError as error:
            refused = {id(carrier) for carrier in error.refused}
            others = [carrier for carrier in carriers if id(carrier) not in refused]
            self._again(others)
            self._write_refused(list(error.refused), after=others)
        except Exception as error:
            if is_nobodys(error):
                raise
            units = self._units(carriers)
            if len(units) == 1:
                self.alone.extend(carriers)
            else:
                for half in halves(units):
                    self._again(list(chain.from_iterable(half)))
        else:
            if left_alone:
                for carrier in self._writable(carriers):
                    carrier.yielded = carrier.store.id in left_alone

    def _write_refused(self, carriers: Group, after: Group) -> None:
        """Write what its own code refused before other rows were there: together while enough of it succeeds
        each time, the rest alone."""
        if len(after) * WORTH_ANOTHER_TIME < len(carriers):
            self.alone.extend(carriers)
            return
        self.cache.look_again(carriers)
        for carrier in carriers:
            self._renew(carrier)
        sound = self._writable(carriers)
        unsound = [carrier for carrier in carriers if carrier.errors]
        for carrier in unsound:
            carrier.errors.clear()
        self.alone.extend(unsound)
        self._write_together(sound)

    def _without_rivals(self, carriers: Group) -> Group:
        """What claims no unique value of another row; the rest is to be written alone."""
        self.rivals = rivals(carriers)
        if not self.rivals:
            return carriers
        others: Group = []
        for unit in self._units(carriers):
            (others if self.rivals.isdisjoint(unit) else self.alone).extend(unit)
        return others

    def _again(self, carriers: Group) -> None:
        """Write carriers whose first attempt was rolled back: their ``save()`` may have changed them."""
        for carrier in carriers:
            self._renew(carrier)
        self._write_together(self._writable(carriers))

    def _renew(self, carrier: DeserializeTask) -> None:
        if carrier.looked_early:
            carrier.put_off()
        elif carrier.app_model is not None and traits_of(carrier.model).follows_relations:
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

    def _units(self, carriers: Group) -> list[Group]:
        """What can be written without the rest of `carriers`, once what stands before it has been."""
        keys = mutual_keys(self.cache.profile)
        if any(keys[model] for model in {carrier.model for carrier in carriers}):
            return inseparable(carriers)
        return [[carrier] for carrier in carriers]

    def _write_alone(self) -> None:
        """Until none is left or none succeeds: some want others of the same model to be there."""
        alone = {id(carrier) for carrier in self.alone}
        waiting = self._units([carrier for carrier in self.group if id(carrier) in alone] if alone else [])
        while waiting:
            failed = [unit for unit in waiting if not self._try_alone(unit)]
            if len(failed) == len(waiting):
                break
            for carrier in chain.from_iterable(failed):
                carrier.errors.clear()
            waiting = failed
        self._fail_descendants()

    def _try_alone(self, unit: Group) -> bool:
        if len(unit) == 1 and unit[0] in self.rivals:
            success = self._try_rival(unit[0])
            if success is not None:
                return success
        culprits = [carrier for carrier in unit if not self._prepare(carrier)]
        if not culprits:
            culprits = self._try_to_save(unit)
        for carrier in unit:
            if culprits and not carrier.has_errors:
                carrier.fail(_failed(culprits[0]), may_succeed_later=True)
        return not culprits

    def _try_rival(self, carrier: DeserializeTask) -> bool | None:
        """Write it as a group of its own: the database says the same of it, in a fraction of the time.

        :returns: None if something else than the database's constraints is against it
        """
        if not self._may_be_tried(carrier):
            return False
        self._renew(carrier)
        if carrier.errors:
            return False
        try:
            with self.cache.undone_on_error([carrier]), transaction.atomic():
                carrier.yielded = bool(write_together([carrier], self.cache, self.validate.again))
                self.check_constraints()
        except IntegrityError as error:
            carrier.fail(error, may_succeed_later=True)
            return False
        except Exception as error:
            if is_nobodys(error):
                raise
            return None
        return True

    def _prepare(self, carrier: DeserializeTask) -> bool:
        if not self._may_be_tried(carrier):
            return False
        if carrier.looked_early:
            self.validate.again(carrier)
        else:
            rebuild(carrier, self.cache)
        return not carrier.has_errors

    def _may_be_tried(self, carrier: DeserializeTask) -> bool:
        if carrier.parent is not None and carrier.parent.has_errors:
            carrier.fail(dirty_parent(), may_succeed_later=True)
            return False
        for needed in map(self.cache.carriers.get, partner_ids(carrier)):
            if needed is not None and needed.has_errors:
                carrier.fail(_failed(needed), may_succeed_later=True)
                return False
        return True

    def _try_to_save(self, unit: Group) -> Group:
        """Save what is inseparable.

        :returns: the carriers that the error is about, all of them if it can't be told; none on success
        """
        culprits = unit
        try:
            with self.cache.undone_on_error(unit), transaction.atomic():
                for carrier in self._writable(unit):
                    culprits = [carrier]
                    carrier.yielded = not write_alone(carrier, self.cache)
                    self.cache.written(carrier)
                culprits = unit
                self.check_constraints()
        except Exception as error:
            if is_nobodys(error):
                raise
            for carrier in culprits:
                carrier.fail(error, may_succeed_later=True)
            return culprits
        return []

    def _fail_descendants(self) -> None:
        for carrier in self.group:  # parents first
            if carrier.parent is not None and carrier.parent.has_errors and not carrier.store.deleted:
                carrier.errors.clear()
                carrier.fail(dirty_parent(), may_succeed_later=True)


def _failed(carrier: DeserializeTask) -> Exception:
    return target_failed(str(carrier.model._meta.verbose_name), carrier.store.id)


def is_outage(error: Exception) -> bool:
    """Whether it is the database or this machine that can't, whatever the record."""
    if isinstance(error, DatabaseError | InterfaceError):
        return is_transient(error)
    return isinstance(error, MemoryError)


def is_nobodys(error: Exception) -> bool:
    """Return True if no record is to blame: the database or this machine can't, or refuses what is ours."""
    return is_outage(error) or is_systemic(error)


def halves(items: list[Item]) -> tuple[list[Item], list[Item]]:
    middle = len(items) // 2
    return items[:middle], items[middle:]
