"""Deleting app rows in bulk, with Django's cascade, and without ``post_delete``.

Morango mutes ``post_delete`` while it deletes, or its own receiver would take the deletion for a
local one. Its way of muting swaps the receivers of the whole process, so it isn't used here.
"""

from __future__ import annotations

from collections.abc import Sequence
from operator import attrgetter
from typing import Any

from django.db import router, transaction
from django.db.models import Model, signals, sql
from django.db.models.deletion import Collector
from morango.models.core import SyncableModel


def delete_rows(model: type[SyncableModel], ids: Sequence[str]) -> set[str]:
    """Delete the app rows with these ids, and what cascades from them.

    :returns: the ids that were left alone because of a local edit (the app row's dirty bit)
    :raises ProtectedError, RestrictedError: another row forbids it; nothing was deleted
    """
    using = router.db_for_write(model)
    rows = list(model.syncing_objects.using(using).filter(pk__in=ids).select_for_update(of=("self",)))
    collector = QuietCollector(using=using)
    unedited = [row for row in rows if not row._morango_dirty_bit]
    if unedited:
        collector.collect(unedited)
        collector.delete()
    return {row.pk for row in rows if row._morango_dirty_bit}


class QuietCollector(Collector):
    """Django's collector, which sends no ``post_delete``."""

    def _has_signal_listeners(self, model: type[Model]) -> bool:
        return signals.pre_delete.has_listeners(model)

    def delete(self) -> Any:
        """Delete what was collected, in the order that foreign keys ask for."""
        for model, instances in self.data.items():
            self.data[model] = sorted(instances, key=attrgetter("pk"))
        self.sort()
        with transaction.atomic(using=self.using, savepoint=False):
            for model, instance in self.instances_with_model():
                if not model._meta.auto_created:
                    signals.pre_delete.send(sender=model, instance=instance, using=self.using)
            queryset: Any  # the stubs know neither the private delete nor the shape of the updates
            for queryset in self.fast_deletes:
                queryset._raw_delete(using=self.using)
            field_updates: Any = self.field_updates
            for model, updates in field_updates.items():
                for (field, value), rows in updates.items():
                    sql.UpdateQuery(model).update_batch(
                        [row.pk for row in rows], {field.name: value}, self.using
                    )
            for model, instances in self.data.items():
                keys = [instance.pk for instance in list(instances)[::-1]]
                sql.DeleteQuery(model).delete_batch(keys, self.using)
