"""Stand-ins for records that Morango treats in another way than we promise.

Where it would abort, or deviate from us, Morango gets a record that makes it treat all the others as they
deserve.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from django.db.models import ForeignKey
from morango.models import DeletedModels, HardDeletedModels, Store
from morango.sync.operations import _self_referential_fk

from tests.parity.case import (
    Case,
    app_rows_of,
    exists,
    is_deleted_by_cascade,
    is_elsewhere,
    model_of,
    references,
    synced_references,
    synced_targets,
    table_of,
    target_of,
    values_of,
)

INVALID = ("django.core.exceptions.ValidationError", "json.decoder.JSONDecodeError")
INTEGRITY = "django.db.utils.IntegrityError"


@dataclass(frozen=True)
class Broken:
    """Stands in for a record that is in error for a reason of ours."""

    text: str
    path: str


@dataclass(frozen=True)
class Lost(Broken):
    """Stand-in for a record with an absent target, and no defect of its own."""


@dataclass(frozen=True)
class InErrorByChance(Broken):
    """Stand-in for a record that might be deleted with its target as well, and that is in error with us."""

    noted: bool
    hard: bool
    """Properties of the deletion that is noted all the same, if it is."""


@dataclass(frozen=True)
class Gone:
    """Stand-in for a record that is deleted with its target."""

    hard: bool


@dataclass(frozen=True)
class LeftAlone:
    """Stand-in for a record that yields to a local edit."""


@dataclass(frozen=True)
class Kept(LeftAlone):
    """Stand-in for a deleted record that yields to a local edit."""


StandIn = Broken | Gone | LeftAlone
Finding = tuple[str, StandIn, str | None]
"""Id of a record, its stand-in, and the target that is the reason, if one is."""


def prepared(case: Case, stand_ins: Mapping[str, StandIn]) -> Iterator[Store]:
    """Return the Store rows that Morango gets to see."""
    # Left to chance with Morango is whether siblings of a deleted record are saved before or after
    for original in sorted(case.rows, key=lambda each: not each.deleted):
        row = copy.copy(original)
        if case.takes(row):
            row.unset_deserialization_error()  # propagated-deletions-stay-dirty, with the old error
        # deleted-orphans, parents-outside-the-filter
        if row.deleted or is_elsewhere(row._self_ref_fk, case):
            row._self_ref_fk = ""
        match stand_ins.get(row.id):
            case Broken():
                row.serialized = "{"
            case Gone(hard):
                row.deleted, row.hard_deleted = True, hard
            case LeftAlone():
                row.dirty_bit = row.deleted = row.hard_deleted = False
        yield row
    # targets-outside-the-store
    for instance in case.app:
        if instance.pk not in {row.id for row in case.rows}:
            yield Store(
                id=instance.pk,
                profile=case.profile,
                model_name=instance.morango_model_name,
                partition=instance._morango_partition,
                source_id=instance._morango_source_id,
                last_saved_instance="1d" * 16,
                last_saved_counter=1,
            )


def misjudged(case: Case) -> Iterator[Finding]:
    """Yield a stand-in for each record that Morango has treated in another way than we promise, in the
    database as it is."""
    stored = {row.id: row for row in Store.objects.all()}
    deleted = set(DeletedModels.objects.values_list("id", flat=True))
    hard_deleted = set(HardDeletedModels.objects.values_list("id", flat=True))
    rows = app_rows_of(case.profile)
    known = {row.id for row in case.rows}
    taken = [row for row in case.rows if case.takes(row) and model_of(row) is not None]
    in_error = {row.id for row in taken if stored[row.id].deserialization_error}
    edited = {instance.pk: instance for instance in case.app if instance._morango_dirty_bit}
    for row in case.rows:
        spared = row.deleted and row.id in edited and not case.takes(row)
        if spared and row.id in rows[table_of(row)]:
            yield row.id, Kept(), None  # local-edits
    for original in taken:
        row = stored[original.id]
        if row.id in in_error:
            if row.id in edited and _was_refused_by_save(row):
                yield row.id, LeftAlone(), None  # local-edits: a record that isn't saved isn't refused either
                for foreign_key, target in synced_references(original):
                    if target in in_error:
                        yield row.id, Broken(_failed(foreign_key, target), INVALID[0]), target
            if row.deserialization_exception.endswith("DoesNotExist"):  # said by the model's own save()
                for foreign_key, target in synced_references(original):
                    if target in deleted:
                        yield row.id, Gone(hard=target in hard_deleted), target
                    elif target not in known and not exists(rows, foreign_key, target):
                        yield row.id, Lost(_missing(foreign_key, target), INTEGRITY), target
            continue
        if row.deleted and not original.deleted:  # Gone
            for foreign_key, target in synced_references(original):
                if target in in_error:
                    yield row.id, Broken(_failed(foreign_key, target), INVALID[0]), target  # failed-targets
            continue
        if row.deleted:
            edit = edited.get(row.id)
            if edit is not None and not is_deleted_by_cascade(edit, rows):
                yield row.id, Kept(), None  # local-edits
            continue
        now = rows[table_of(original)].get(row.id)
        if now is None or row.id in deleted:  # deleted with its target
            for target in synced_targets(original):
                if target in in_error:  # failed-targets
                    yield row.id, Broken(f"['… with id {target} failed to deserialize']", INVALID[0]), target
            continue
        if row.id in edited and values_of(edited[row.id]) != values_of(now):
            yield row.id, LeftAlone(), None  # local-edits
        for foreign_key, target in references(now):
            is_there = exists(rows, foreign_key, target)
            if is_there and _self_referential_fk(type(now)):
                continue  # of trees, Morango asks the app tables alone
            if target in deleted and not is_there and target not in in_error:
                yield row.id, Gone(hard=target in hard_deleted), target  # propagated-deletion-levels
            elif target in in_error:
                yield row.id, Broken(_failed(foreign_key, target), INVALID[0]), target  # failed-targets
            elif not is_there and target in known:
                yield row.id, Lost(_failed(foreign_key, target), INVALID[0]), target
            elif not is_there:
                yield row.id, Lost(_missing(foreign_key, target), INTEGRITY), target


def _was_refused_by_save(row: Store) -> bool:
    path, text = row.deserialization_exception, row.deserialization_error
    return path.endswith("WrongSchoolError") or (path == INTEGRITY and "references" not in text)


def _failed(foreign_key: ForeignKey[Any, Any], target: str) -> str:
    return f"['{target_of(foreign_key)._meta.verbose_name} with id {target} failed to deserialize']"


def _missing(foreign_key: ForeignKey[Any, Any], target: str) -> str:
    name = target_of(foreign_key)._meta.verbose_name
    reference = f"{foreign_key.model.__name__}.{foreign_key.attname}"
    return f"{reference} references non-existent {name} instance with id '{target}'"


def first_causes(findings: Sequence[Finding]) -> dict[str, StandIn]:
    """Return the stand-ins that no other one can be the cause of: a cause's fate is going to change.

    A deleted record with a local edit goes first. A target in error goes before a deleted one, that before
    an absent one, and all of them before a local edit.
    """
    ids = {store_id for store_id, _, _ in findings}
    first = [finding for finding in findings if finding[2] not in ids] or findings
    for kind in (Kept, Broken, Gone, Lost, LeftAlone):
        found = {store_id: stand_in for store_id, stand_in, _ in first if type(stand_in) is kind}
        if found:
            return found
    return {}
