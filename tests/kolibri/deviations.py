"""The differences from Morango that are meant: each with its reason and a test that it is one of ours.

A name is the anchor in ``docs/fidelity.md`` of the line that explains it.
"""

from __future__ import annotations

import datetime
import json
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.kolibri.compare import STORE, Outcome
from tests.support.differences import WHOLE_ROW, Difference

FIDELITY = Path(__file__).parents[2] / "docs" / "fidelity.md"

DELETED = "morango_deletedmodels"

ERROR_COLUMNS = ("deserialization_error", "deserialization_exception")


@dataclass(frozen=True)
class Deviation:
    """A difference in our favour."""

    name: str
    reason: str
    explains: Callable[[Difference, Outcome, Outcome], bool]
    """A judge of both outcomes: True if the deviation is the cause of a difference."""


def _deleted_stays_dirty(difference: Difference, morango: Outcome, ours: Outcome) -> bool:
    record = ours.store.get(difference.key)
    return (
        difference.table == STORE
        and difference.column == "dirty_bit"
        and bool(difference.morango)
        and not difference.ours
        and record is not None
        and bool(record["deleted"])
        and not record["deserialization_error"]
        and not ours.models[record["model_name"]]["is_tree"]
        and ours.app_row(difference.key) is None
    )


def _spread_stays_dirty(difference: Difference, morango: Outcome, ours: Outcome) -> bool:
    return (
        difference.table == STORE
        and difference.column == "dirty_bit"
        and bool(difference.morango)
        and not difference.ours
        and not ours.store[difference.key]["deserialization_error"]
        and ours.app_row(difference.key) is None
        and all(difference.key in found.tables[DELETED] for found in (morango, ours))
    )


def _row_order(difference: Difference, morango: Outcome, ours: Outcome) -> bool:
    key = difference.key
    if key not in ours.store or not morango.store[key]["deserialization_error"]:
        return False
    stable = morango.stable.get(difference.table, {}).get(key)
    expected = stable if difference.column == WHOLE_ROW or stable is None else stable.get(difference.column)
    return (
        not ours.store[key]["dirty_bit"]
        and not morango.stable[STORE][key]["dirty_bit"]
        and expected == difference.ours
    )


def _clock(difference: Difference, morango: Outcome, ours: Outcome) -> bool:
    record = ours.store.get(difference.key)
    model = ours.models.get(record["model_name"]) if record else None
    if record is None or model is None or difference.table != model["table"]:
        return False
    return (
        difference.column in model["clock_columns"]
        and _moment(difference.morango) == _moment(morango.clock)
        and _moment(difference.ours) == _moment(json.loads(record["serialized"])[difference.column])
    )


def _moment(value: Any) -> datetime.datetime:
    moment = datetime.datetime.fromisoformat(value)
    return moment if moment.tzinfo else moment.replace(tzinfo=datetime.UTC)


def _parent_called_missing(difference: Difference, morango: Outcome, ours: Outcome) -> bool:
    record = ours.store.get(difference.key)
    if record is None or difference.table != STORE or difference.column not in ERROR_COLUMNS:
        return False
    return (
        str(morango.store[difference.key]["deserialization_error"]).startswith(
            "Parent does not exist in Store"
        )
        and str(record["deserialization_error"]).startswith("Parent is dirty")
        and record["_self_ref_fk"] in ours.in_error
    )


def _aborts(difference: Difference, morango: Outcome, ours: Outcome) -> bool:
    record = ours.store.get(difference.key)
    return (
        morango.retried
        and difference.key in morango.poisonous
        and record is not None
        and difference.table == STORE
        and difference.column in ERROR_COLUMNS
        and not difference.morango
        and bool(difference.ours)
        and bool(record["dirty_bit"])
        and ours.app_row(difference.key) is None
    )


def _spreads_further(difference: Difference, morango: Outcome, ours: Outcome) -> bool:
    record = ours.store.get(difference.key)
    if not (morango.retried and difference.key in morango.poisonous and record is not None):
        return False
    is_deletion = (
        not record["dirty_bit"]
        and not record["deserialization_error"]
        and ours.app_row(difference.key) is None
        and difference.key in ours.tables[DELETED]
    )
    return is_deletion and (difference.table, difference.column) in {
        (STORE, "dirty_bit"),
        (DELETED, WHOLE_ROW),
    }


def _failed_target(difference: Difference, morango: Outcome, ours: Outcome) -> bool:
    record = ours.store.get(difference.key)
    if record is None or not (record["dirty_bit"] and _names_failed_target(record, ours)):
        return False
    if _aborts(difference, morango, ours):
        return True
    return (
        difference.table == STORE
        and difference.column == "deserialization_error"
        and bool(difference.morango)
        and bool(morango.store[difference.key]["dirty_bit"])
    )


def _names_failed_target(record: Mapping[str, Any], ours: Outcome) -> bool:
    """Return True if the error of `record` is a reference to another one in error, and that is true."""
    error = record["deserialization_error"] or ""
    if error.startswith("Parent is dirty"):
        return record["_self_ref_fk"] in ours.in_error
    named = re.search(r" with id ([0-9a-f]{32}) failed to deserialize", error)
    return (
        named is not None
        and named[1] in ours.in_error
        and named[1] in json.loads(record["serialized"]).values()
    )


def _unregistered(difference: Difference, morango: Outcome, ours: Outcome) -> bool:
    record = ours.store.get(difference.key)
    return (
        record is not None
        and record["model_name"] not in ours.models
        and difference.table == STORE
        and difference.column in ERROR_COLUMNS
        and not difference.morango
        and bool(difference.ours)
        and bool(record["dirty_bit"])
    )


DEVIATIONS: Sequence[Deviation] = (
    Deviation(
        "deleted-records-stay-dirty",
        "Morango never clears the dirty bit of deleted records of models that don't refer to themselves.",
        _deleted_stays_dirty,
    ),
    Deviation(
        "propagated-deletions-stay-dirty",
        "Morango leaves a record dirty that it deletes because what it refers to was deleted.",
        _spread_stays_dirty,
    ),
    Deviation(
        "row-order",
        "Morango fails on a record whose save() needs a row that comes later; run again, it saves the same.",
        _row_order,
    ),
    Deviation(
        "auto-now",
        "Morango overwrites a synced time with its own clock's.",
        _clock,
    ),
    Deviation(
        "dirty-parents-called-missing",
        "Morango says of a dirty parent of another model of the same tree that it does not exist.",
        _parent_called_missing,
    ),
    Deviation(
        "failed-targets",
        "Morango aborts where only the database misses a record that could not be saved; ours names it.",
        _failed_target,
    ),
    Deviation(
        "one-bad-record",
        "Morango gives up on all records where ours writes the error to the one that raised it.",
        _aborts,
    ),
    Deviation(
        "propagated-deletion-levels",
        "Morango aborts on live grandchildren of a deleted record; ours deletes them too.",
        _spreads_further,
    ),
    Deviation(
        "unregistered-models",
        "Morango leaves a record of a model that nobody registered without an error.",
        _unregistered,
    ),
)


def explain(difference: Difference, morango: Outcome, ours: Outcome) -> Deviation | None:
    """Find the deviation that a difference is, if it is one."""
    return next((d for d in DEVIATIONS if d.explains(difference, morango, ours)), None)


def undocumented(names: set[str]) -> list[str]:
    """List the deviations among `names` that have no anchor in ``docs/fidelity.md``."""
    text = FIDELITY.read_text(encoding="utf-8") if FIDELITY.exists() else ""
    return sorted(names - set(re.findall(r'<a id="([^"]+)"', text)))
