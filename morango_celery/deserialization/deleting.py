"""Deleting app rows as Morango does, and together where no code of the project can tell the difference."""

from __future__ import annotations

from collections.abc import Sequence

from django.db import router
from django.db.models import QuerySet
from django.db.models.signals import post_delete, pre_delete
from morango.models.core import SyncableModel

from morango_celery.deserialization.code_edits import current
from morango_celery.deserialization.identifiers import locking
from morango_celery.deserialization.issuer import MODELS_CODE, OUR_STATEMENT
from morango_celery.deserialization.muting import muted
from morango_celery.django_compat import CollectorWithoutPostDelete


def delete_rows(model: type[SyncableModel], ids: Sequence[str]) -> set[str]:
    """Delete the app rows with these ids, and all rows that cascade from them.

    As by Morango, ``post_delete`` is muted for all that is deleted meanwhile, by receivers of ``pre_delete``
    too: Morango's own receiver would take it for a deletion made here.

    :returns: the ids that were left alone because of a local edit (the app row's dirty bit)
    :raises ProtectedError, RestrictedError: another row forbids it; roll back
    Cost: a constant number of statements; where code of the project takes part, as many per row.
    """
    objects = model.syncing_objects.using(router.db_for_write(model))
    rows = {row.pk: row for row in locking(objects.filter(pk__in=ids))}
    dirty = {key for key, row in rows.items() if row._morango_dirty_bit}
    edited = dirty - current().made_by_code(model, dirty) if dirty else dirty
    unedited = [rows[key] for key in ids if key in rows and key not in edited]
    if unedited:
        with muted(post_delete):
            _delete(objects, unedited)
    return edited


def _delete(objects: QuerySet[SyncableModel], rows: Sequence[SyncableModel]) -> None:
    own_delete = type(objects).delete is not QuerySet.delete
    if not own_delete:
        collector = CollectorWithoutPostDelete(using=objects.db)
        collector.collect(rows)
        if not any(map(pre_delete.has_listeners, collector.data)):
            collector.delete()
            return
    with MODELS_CODE if own_delete else OUR_STATEMENT:
        for key in [row.pk for row in rows]:  # their code may look at the other rows, or delete them itself
            objects.filter(pk=key).delete()
