"""Documented deviations, recognized by a record's outcome on each side.

Each has the name of its row in ``docs/fidelity.md``. A difference that no rule recognizes is a difference.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from morango.errors import MorangoDirtyParent, MorangoMissingParent
from morango.models.core import DeletedModels

from morango_celery.comparison.results import SIDES, LeftRow, Pair, Results
from morango_celery.comparison.tables import Table
from morango_celery.deserialization.quarantine import QUARANTINED
from morango_celery.errors import MismatchedIdError, UnknownModelError
from morango_celery.upstream import exception_path

DIRTY_PARENT: str = exception_path(MorangoDirtyParent)
MISSING_PARENT: str = exception_path(MorangoMissingParent)
ORDER = "row-order"
CHANCE = "left-to-chance-here-as-in-morango"
SET_ASIDE = "one-bad-record"
_OF_OURS = {
    exception_path(MismatchedIdError): "other-ids",
    exception_path(UnknownModelError): "unregistered-models",
    QUARANTINED: "quarantined-records",
}

INVISIBLE: Mapping[str, str] = {
    "propagated-deletion-levels": "Morango's function is aborted, and nothing can be compared",
    "protected-rows": "Morango's function is aborted, so the records are set aside",
    "references-that-are-no-ids": "Morango's function is aborted, so the records are set aside",
    "own-queries": "Morango's function is aborted, so the records are set aside",
    "times-beyond-the-calendar": "a value that nobody can read again, or Morango's function is aborted",
    "several-deleted-targets": "Morango's function is aborted, and nothing can be compared",
    "many-prefixes": "Morango's function is aborted",
    "trees-in-other-passes": "needs a decision of an operator: two verdicts on one record",
    "local-edits": "both sides see one state, and serialize it first",
    "quarantined-records": "neither side is given them",
    "unreadable-stored-json": "Morango's function is aborted",
    "edits-while-serializing": "both sides see one state",
    "waiting-for-partitions": "nobody else serializes meanwhile",
    "signals-of-others": "no other threads write in this transaction",
}
"""Deviations that no difference of rows can show, and the reason."""


@dataclass(frozen=True)
class Fate:
    """The state of a Store row on one side."""

    is_gone: bool
    is_dirty: bool
    path: str
    text: str

    @classmethod
    def of(cls, row: LeftRow | None) -> Fate | None:
        """Return the fate of a Store row; None where the side left no such row, or didn't write it."""
        if row is None or row.detail is None:
            return None
        values = json.loads(row.detail)
        return cls(
            bool(values["deleted"] or values["hard_deleted"]),
            bool(values["dirty_bit"]),
            values["deserialization_exception"] or "",
            values["deserialization_error"] or "",
        )


def explanation(
    pair: Pair, table: Table, columns: Sequence[str], results: Results, store: Table
) -> str | None:
    """Return the anchor of the deviation that explains a row's difference; None if none does.

    :param columns: columns that differ; empty where one side has no such row
    """
    if columns and table.clocks.issuperset(columns):
        return "auto-now"
    record_id = pair.key.split("/")[0]
    morango, ours = (Fate.of(results.row(side, store.name, record_id)) for side in SIDES)
    deleted = DeletedModels._meta.db_table
    noted = all(results.row(side, deleted, record_id) for side in SIDES)
    return named(morango, ours, is_noted_deleted=noted)


def named(morango: Fate | None, ours: Fate | None, *, is_noted_deleted: bool = False) -> str | None:
    """Return the deviation by which a record may have these two fates."""
    if ours is not None and ours.path in _OF_OURS:
        return _OF_OURS[ours.path]
    if morango is None or ours is None:
        return None
    if morango.is_dirty and not ours.is_dirty:
        return _done_by_us_alone(morango, ours, is_noted_deleted=is_noted_deleted)
    if not ours.is_dirty:
        return None
    if ours.text.startswith("['") and ours.text.endswith(" failed to deserialize']"):
        return "failed-targets"
    if (morango.path, ours.path) == (MISSING_PARENT, DIRTY_PARENT):
        return "dirty-parents-called-missing"
    if morango.is_dirty and "This field cannot be null." in ours.text:
        return "null-references"
    if morango.is_dirty and _misses_a_target(morango.text) and _misses_a_target(ours.text):
        return CHANCE
    return None


def _done_by_us_alone(morango: Fate, ours: Fate, *, is_noted_deleted: bool) -> str | None:
    if ours.is_gone:
        if morango.path in (DIRTY_PARENT, MISSING_PARENT):
            return "deleted-orphans"
        return None if morango.text else "deleted-records-stay-dirty"
    if is_noted_deleted:
        return "propagated-deletions-stay-dirty"
    if morango.path == MISSING_PARENT:
        return "parents-outside-the-filter"
    if _misses_a_target(morango.text):
        return "targets-outside-the-store"
    return None


def _misses_a_target(text: str) -> bool:
    return re.fullmatch(r"\w+\.\w+ references non-existent \w+ instance with id '\w+'", text) is not None
