"""Records of other batches that a batch needs beside its own.

Where the foreign keys of models form a cycle, some records can only be saved together. The child of a locally
edited tree record needs a verdict on that parent, though the parent isn't saved.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from morango.models.core import Store
from typing_extensions import override

from morango_celery.conf import settings
from morango_celery.deserialization.claim import claim
from morango_celery.deserialization.dependency_graph import cyclic_foreign_keys
from morango_celery.deserialization.graph import strongly_connected_components
from morango_celery.deserialization.groups import Group, GroupTransform
from morango_celery.deserialization.parse import RefuseUnknownModels, parse
from morango_celery.deserialization.require_targets import require_targets
from morango_celery.deserialization.task import DeserializeTask
from morango_celery.reading.sizes import StoredBytes

MAX_CYCLE_MEMBERS = 5_000
"""Further records that a group may claim. Others wait for the next pass, in which fewer are missing."""


class ClaimCycleMembers(GroupTransform):
    """Operator that adds the waiting records that a group needs, from any batch of the run.

    Cost: nothing but for models in a cycle and children of edited records; else one look at sizes, one claim
    and one lookup per reference followed.
    """

    @override
    def update(self, group: Group) -> None:
        room, room_bytes, newest = MAX_CYCLE_MEMBERS, settings.BATCH_SIZE_BYTES, list(group)
        while room > 0 and room_bytes > 0 and (waiting := self._waiting(newest)[:room]):
            waiting, claimed_bytes = _at_most(room_bytes, waiting)
            room_bytes -= claimed_bytes
            newest = RefuseUnknownModels().transform(claim(waiting, self.context))
            for carrier in newest:
                carrier.from_other_batch = True
            parse([carrier for carrier in newest if carrier.has_model], self.context)
            self.context.load(newest)
            require_targets(newest, self.context)
            group.extend(newest)
            room -= len(newest)

    def _waiting(self, carriers: Group) -> list[str]:
        keys = cyclic_foreign_keys(self.context.profile)
        if not self.context.has_local_edits and not any(keys.values()):
            return []
        wanted: set[str] = set()
        for carrier in carriers:
            if carrier.has_model and keys[carrier.model]:
                wanted |= cyclic_reference_ids(carrier)
            if not carrier.store.deleted and self.context.edited_locally(carrier.store._self_ref_fk):
                wanted.add(carrier.store._self_ref_fk)
        return sorted(filter(self.context.is_waiting, wanted))


def _at_most(most_bytes: int, store_ids: Sequence[str]) -> tuple[list[str], int]:
    """Return the first of some records, as many as fit, and their bytes. One is taken, however large."""
    records: Any = Store.objects.filter(pk__in=store_ids)
    sizes = dict(records.char_ids_list().values_list("fixed_id", StoredBytes("serialized")))
    taken: list[str] = []
    total = 0
    for store_id in store_ids:
        size = sizes.get(store_id, 0)
        if taken and total + size > most_bytes:
            break
        taken.append(store_id)
        total += size
    return taken, total


def cyclic_reference_ids(carrier: DeserializeTask) -> set[str]:
    """Return the ids that a parsed carrier refers to by the foreign keys that form a cycle."""
    if carrier.has_errors or carrier.parsed is None:
        return set()
    keys = cyclic_foreign_keys(carrier.store.profile)[carrier.model]
    values = [carrier.parsed.reference(key) for key in keys]
    return {value for value in values if isinstance(value, str)}


def strongly_connected(carriers: Sequence[DeserializeTask]) -> list[Group]:
    """Return groups of carriers that have to be written at once, dependencies first; nearly always one each.

    They are the strongly connected components of the references among `carriers`.
    """
    by_id = {carrier.store.id: carrier for carrier in carriers}
    needs = {key: [i for i in _needed_ids(carrier) if i in by_id] for key, carrier in by_id.items()}
    return [[by_id[key] for key in component] for component in strongly_connected_components(needs)]


def _needed_ids(carrier: DeserializeTask) -> list[str]:
    parent = [] if carrier.parent is None else [carrier.parent.store.id]
    return parent + sorted(cyclic_reference_ids(carrier))
