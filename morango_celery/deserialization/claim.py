"""Source of claimed records: they are locked for this transaction, and arrive in groups."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from django.db import connection
from django.db.models.base import ModelState
from morango.models.core import Store
from typing_extensions import override

from morango_celery.deserialization import sql
from morango_celery.deserialization.context import BatchContext
from morango_celery.deserialization.dependency_graph import component_positions
from morango_celery.deserialization.groups import Group
from morango_celery.deserialization.task import DeserializeTask
from morango_celery.stream import Source


def claim(store_ids: Sequence[str], context: BatchContext) -> list[DeserializeTask]:
    """Carriers of the still dirty records among `store_ids`, claimed and entered in `context`; in no
    particular order."""
    state = ModelState()
    state.adding, state.db = False, connection.alias
    rows = sql.claim(context.profile, store_ids)
    carriers = [DeserializeTask(_store(row, state), context.fk_cache) for row in rows]
    context.carriers.update((carrier.store.id, carrier) for carrier in carriers)
    return carriers


class ClaimedSource(Source[Group]):
    """Source of the records among some ids that are still dirty.

    It streams a group for each component of models, preceded by one for the deleted records of that
    component. Dependencies come first; within a group, the ids' order is kept.
    """

    def __init__(self, store_ids: Sequence[str], context: BatchContext) -> None:
        self.store_ids = store_ids
        self.context = context

    @override
    def stream(self) -> Iterator[Group]:
        carriers = {carrier.store.id: carrier for carrier in claim(self.store_ids, self.context)}
        self.context.preload_references(list(carriers.values()))
        components = component_positions(self.context.profile)
        groups: dict[tuple[int, bool], Group] = {}
        for store_id in dict.fromkeys(self.store_ids):
            if (carrier := carriers.get(store_id)) is not None:
                store = carrier.store
                place = components.get(store.model_name, -1), not store.deleted
                groups.setdefault(place, []).append(carrier)
        for place in sorted(groups):
            yield groups[place]


def _store(row: Sequence[Any], state: ModelState) -> Store:
    """Return the record that ``Store.from_db`` would make of the claimed columns, in a tenth of the time.

    :param state: one for all, as nobody changes it
    """
    store = Store.__new__(Store)
    store.__dict__ = values = dict(zip(sql.CLAIMED_COLUMNS, row, strict=True))
    values["deleted"] = bool(values["deleted"])  # SQLite has no booleans of its own
    values["hard_deleted"] = bool(values["hard_deleted"])
    values["_state"] = state
    return store
