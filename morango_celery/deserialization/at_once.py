"""Writing a whole batch at once: one savepoint and one look at the constraints for all of its models.

Most batches have nothing that the database or models' code refuses. When one has, all of it is undone, and
`AppModelSink` finds the records that are to blame, group by group.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from typing_extensions import override

from morango_celery.deserialization.deleting import delete_rows
from morango_celery.deserialization.groups import Group, mark_local_edits, writable
from morango_celery.deserialization.issuer import is_no_records_fault
from morango_celery.deserialization.one_by_one import OneByOne
from morango_celery.deserialization.saving import write_together
from morango_celery.deserialization.sink import AppModelSink
from morango_celery.deserialization.writing import GroupWriter

MAX_RECORDS = 1_000
"""Records of a batch that is written at once. Of a larger one the fixed price hardly matters, and more of it
would have to be written again for one record that can't be."""


class NotAtOnceError(Exception):
    """Signal that a batch can't be written at once. All of it is undone, and written group by group."""


class AtOnceSink(AppModelSink):
    """Writer of groups without savepoints of their own. Must be used inside a savepoint that an error rolls
    back.

    Cost: as `AppModelSink`, less a savepoint and a check of constraints per model, and less a query per
    unique constraint.
    """

    _wrote = False

    @override
    def _delete(self, carriers: Group) -> None:
        while carriers:
            model = carriers[0].model
            same = [carrier for carrier in carriers if carrier.model is model]
            with _all_or_nothing():
                mark_local_edits(same, delete_rows(model, [carrier.store.id for carrier in same]))
            self._wrote = True
            carriers = [carrier for carrier in carriers if carrier.model is not model]

    @override
    def _write(self, group: Group) -> None:
        writer = _AtOnceWriter(self.context, group, self.check_constraints)
        with _all_or_nothing():
            writer.write()
        self._wrote = self._wrote or writer.wrote

    @override
    def finalize(self) -> None:
        if self._wrote:
            with _all_or_nothing():
                self.check_constraints()
        super().finalize()


class _AtOnceWriter(GroupWriter):
    """Writer of the valid records of one group, which raises on the first that can't be written."""

    wrote = False

    @override
    def _without_conflicting(self, carriers: Group) -> Group:
        return carriers  # the database says so if there are any

    @override
    def _write_together(self, carriers: Group) -> None:
        carriers = self._without_waiting_parents(carriers)
        if carriers:
            self.wrote = True
            if skipped_ids := write_together(carriers, self.context, self.revalidate):
                mark_local_edits(writable(carriers), skipped_ids)

    @override
    def _write_alone(self) -> None:
        alone = {id(carrier) for carrier in self.alone}
        if alone:
            self.wrote = True
            units = self._units([carrier for carrier in self.group if id(carrier) in alone])
            if not OneByOne(self.context, self.check_constraints, self.conflicting, self.untried).save_all(
                units
            ):
                raise NotAtOnceError
        self._fail_descendants()


@contextmanager
def _all_or_nothing() -> Iterator[None]:
    """Turn each error that a record may be to blame for into `NotAtOnceError`.

    The batch is then written group by group, which finds the record.

    :raises NotAtOnceError: instead of such errors
    """
    try:
        yield
    except Exception as error:  # a model's own code may raise anything, and a record is to blame
        if is_no_records_fault(error):
            raise
        raise NotAtOnceError from error
