"""Corrections of Morango's mistakes in the database, as ``docs/fidelity.md`` describes them."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from itertools import chain
from typing import Any
from unittest import mock

from morango.models import DeletedModels, HardDeletedModels, Store, SyncableModel
from morango.sync.operations import DBBackend

from tests.parity.case import Case, clocks_of, is_elsewhere, model_of, synced_targets
from tests.parity.stand_ins import INVALID, Broken, Gone, InErrorByChance, LeftAlone, StandIn

DIRTY_PARENT = ("Parent is dirty; could not deserialize.", "morango.errors.MorangoDirtyParent")
MISSING_PARENT = "morango.errors.MorangoMissingParent"
MISSING_PARENT_TEXT = "Parent does not exist in Store; could not deserialize."
UNKNOWN_MODEL = "morango_celery.errors.UnknownModelError"
OF_OUR_OWN = "(a text of our own)"


@contextmanager
def mended() -> Iterator[None]:
    """Let Morango judge each record without its mistakes about others, or about one."""
    clean_fields, upsert = SyncableModel.cached_clean_fields, DBBackend._bulk_full_record_upsert

    def cached_clean_fields(self: SyncableModel, fk_lookup_cache: dict[str, int], **options: Any) -> None:
        """null-references: keep no null, valid as it may be, among the references that were seen."""
        try:
            clean_fields(self, fk_lookup_cache, **options)
        finally:
            for key in [key for key in fk_lookup_cache if key.startswith("None_")]:
                del fk_lookup_cache[key]

    def bulk_full_record_upsert(
        cursor: Any, table_name: str, fields: Sequence[Any], values: list[Any]
    ) -> None:
        """several-deleted-targets: note each deletion once."""
        rows = dict.fromkeys(zip(*[iter(values)] * len(fields), strict=True))
        upsert(cursor, table_name, fields, list(chain.from_iterable(rows)))

    with (
        mock.patch.object(SyncableModel, "cached_clean_fields", cached_clean_fields),
        mock.patch.object(DBBackend, "_bulk_full_record_upsert", bulk_full_record_upsert),
    ):
        yield


def correct(case: Case, stand_ins: Mapping[str, StandIn]) -> None:
    """Undo the preparations, and correct Morango's mistakes."""
    Store.objects.exclude(id__in=[row.id for row in case.rows]).delete()
    noted = set(DeletedModels.objects.values_list("id", flat=True))
    noted.update(store_id for store_id, stand_in in stand_ins.items() if isinstance(stand_in, Gone))
    stored = {row.id: row for row in Store.objects.all()}
    for original in case.rows:
        row = stored[original.id]
        row.serialized, row._self_ref_fk = original.serialized, original._self_ref_fk
        row.deleted, row.hard_deleted = original.deleted, original.hard_deleted
        if case.takes(original):
            _correct_record(row, stand_ins.get(row.id), case, stored, noted)
        else:
            row.dirty_bit = original.dirty_bit
        row.save()
    _harden(case)


def _harden(case: Case) -> None:
    """propagated-deletion-levels: of several targets one may be purged, at any level."""
    noted = set(DeletedModels.objects.values_list("id", flat=True)) - set(case.noted)
    hard = set(HardDeletedModels.objects.values_list("id", flat=True))
    noted -= set(Store.objects.exclude(deserialization_error=None).values_list("id", flat=True))
    propagated = [row for row in case.rows if row.id in noted and case.takes(row)]
    while more := [
        row for row in propagated if row.id not in hard and not hard.isdisjoint(synced_targets(row))
    ]:
        hard.update(row.id for row in more)
        HardDeletedModels.objects.bulk_create(HardDeletedModels(id=r.id, profile=r.profile) for r in more)


def _correct_record(
    row: Store, stand_in: StandIn | None, case: Case, stored: Mapping[str, Store], noted: set[str]
) -> None:
    if isinstance(stand_in, LeftAlone):
        row.dirty_bit = True
        return
    if isinstance(stand_in, Gone):
        DeletedModels.objects.get_or_create(id=row.id, profile=row.profile)
        if stand_in.hard:
            HardDeletedModels.objects.get_or_create(id=row.id, profile=row.profile)
        row.dirty_bit = False
    elif isinstance(stand_in, Broken) and row.deserialization_exception in INVALID:
        row.deserialization_error, row.deserialization_exception = stand_in.text, stand_in.path
    elif model_of(row) is None:  # unregistered-models
        row.deserialization_error, row.deserialization_exception = OF_OUR_OWN, UNKNOWN_MODEL
    if isinstance(stand_in, InErrorByChance):
        if stand_in.noted:
            DeletedModels.objects.get_or_create(id=row.id, profile=row.profile)
        if stand_in.hard:
            HardDeletedModels.objects.get_or_create(id=row.id, profile=row.profile)
    elif re.search("references non-existent|failed to deserialize", row.deserialization_error or ""):
        # propagated-deletion-levels: Morango notes a deletion beside a bad target, but of one level
        named = re.search("with id (\\w+) failed", row.deserialization_error or "")
        targets = synced_targets(row)
        earlier = targets[: targets.index(named[1])] if named else targets
        for target in noted.intersection(earlier):
            DeletedModels.objects.get_or_create(id=row.id, profile=row.profile)
            if HardDeletedModels.objects.filter(id=target).exists():
                HardDeletedModels.objects.get_or_create(id=row.id, profile=row.profile)
    if row.deserialization_error and _has_lost_parent(row, case):  # parents-outside-the-filter
        row.deserialization_error, row.deserialization_exception = MISSING_PARENT_TEXT, MISSING_PARENT
    parent = stored.get(row._self_ref_fk)
    if row.deserialization_exception == MISSING_PARENT and parent is not None and case.takes(parent):
        # dirty-parents-called-missing
        row.deserialization_error, row.deserialization_exception = DIRTY_PARENT
    if not row.deserialization_error and (row.deleted or row.id in noted):
        row.dirty_bit = False  # deleted-records-stay-dirty, propagated-deletions-stay-dirty
    if not row.dirty_bit and not row.deleted:
        _restore_clock(row)


def _has_lost_parent(row: Store, case: Case) -> bool:
    """Return True if a parent outside of the filter was there, and has gone with its owner."""
    model = model_of(row)
    return (
        model is not None
        and is_elsewhere(row._self_ref_fk, case)
        and not model._base_manager.filter(pk=row._self_ref_fk).exists()
    )


def _restore_clock(row: Store) -> None:
    """auto-now"""
    model = model_of(row)
    assert model is not None
    if clocks := clocks_of(model):
        synced = json.loads(row.serialized)
        model._base_manager.filter(pk=row.id).update(**{name: synced[name] for name in clocks})
