"""Reading of stored objects, with their rows locked until the transaction ends.

A line carries a whole object. Its content and its place in the log have to come from under one lock:
otherwise an object that was read earlier could be written later.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from functools import cache
from typing import Any

from django.db.models import Model, QuerySet

from morango_celery.deserialization.identifiers import locking
from morango_celery.oplog.meta import concrete, key_field, own_fields, rows
from morango_celery.stream import chunked

CHUNK_OBJECTS = 500
FETCHED_OBJECTS = 20
"""Number of objects in memory at a time."""


def stored(model: type[Model], keys: Iterable[Any]) -> Iterator[Model]:
    """Lock objects and read them, in the order of their keys, without missing ones.

    New references to the objects don't wait for these locks; changes of the objects do.

    Cost: a query per 500 objects, and one more for each table of a parent.
    """
    wanted = sorted(set(map(key_field(model).to_python, keys)))
    for chunk in chunked(wanted, CHUNK_OBJECTS):
        for parent in reversed(concrete(model)._meta.get_parent_list()):  # first, as saving does
            lock(parent, rows(model).filter(pk__in=chunk).values(key_field(parent).name))
        found = _locking(rows(model).filter(pk__in=chunk))
        yield from found.iterator(FETCHED_OBJECTS) if len(chunk) > FETCHED_OBJECTS else found


def lock(model: type[Model], keys: QuerySet[Any]) -> None:
    """Lock the rows that objects have in the model's own table, in the order of their keys."""
    list(_locking(rows(model).filter(pk__in=keys)).values_list("pk"))


def lock_for_deletion(instance: Model) -> None:
    """Lock an object's row against new references as well: these wait until this transaction ends."""
    list(locking(rows(type(instance)).filter(pk=instance.pk)).values_list("pk"))


@cache
def is_locked_by_saving(model: type[Model]) -> bool:
    """Return True if saving an object updates a row wherever its many-to-many values belong.

    Django updates no row of a table that has no column but its key.
    """
    parts = (concrete(model), *concrete(model)._meta.get_parent_list())
    return all(len(own_fields(part)) > 1 for part in parts if part._meta.local_many_to_many)


def _locking(found: QuerySet[Any]) -> QuerySet[Any]:
    return locking(found.order_by("pk"), no_key=True)
