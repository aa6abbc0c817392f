"""Ways in which a record arrives broken, each applied to a real one."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from tests.kolibri.records import Row, live, values

ABSENT = "ab5e27" + "0" * 26
"""An id that no record has."""

Change = Callable[[Row], None]


@dataclass(frozen=True)
class Breakage:
    """One broken record: `change` edits the `nth` live record of `model_name`, in the order of ids."""

    about: str
    model_name: str
    change: Change
    nth: int = 0
    copied: bool = False
    """Edit a copy under another id instead: nothing else refers to it."""

    def apply(self, rows: list[Row]) -> str:
        """Break one of `rows` (or append a broken copy), and return its id."""
        row = live(rows, self.model_name)[self.nth]
        if self.copied:
            row = copied(row, self.about)
            rows.append(row)
        self.change(row)
        return str(row["id"])


def copied(row: Row, seed: str) -> Row:
    """Copy a record; its id is made from `seed`."""
    row = dict(row, id=hashlib.sha256(seed.encode()).hexdigest()[:32])
    setting(id=row["id"])(row)
    return row


def truncated(row: Row) -> None:
    """Cut the JSON off."""
    row["serialized"] = row["serialized"][:40]


def deleted(row: Row) -> None:
    """Delete the record, leaving those that refer to it alive."""
    row["deleted"] = True


def hard_deleted(row: Row) -> None:
    """Delete the record and its data."""
    row.update(deleted=True, hard_deleted=True, serialized="{}")


def setting(**changes: Any) -> Change:
    """Set keys of the serialized record."""

    def change(row: Row) -> None:
        row["serialized"] = json.dumps({**values(row), **changes})

    return change


def below(parent_id: str) -> Change:
    """Hang a record of a tree below another one."""

    def change(row: Row) -> None:
        row["_self_ref_fk"] = parent_id
        setting(parent_id=parent_id)(row)

    return change


def of_model(model_name: str) -> Change:
    """Say that the record is of another model."""

    def change(row: Row) -> None:
        row["model_name"] = model_name

    return change


BROKEN: Sequence[Breakage] = (
    Breakage("JSON cut off in a leaf", "attemptlog", truncated, nth=3),
    Breakage("JSON cut off where others refer to it", "masterylog", truncated, nth=5),
    Breakage("a user of a facility that is missing", "facilityuser", setting(facility_id=ABSENT), nth=4),
    Breakage("a foreign key to a missing record", "contentsessionlog", setting(user_id=ABSENT), nth=7),
    Breakage("null in a foreign key that needs a value", "bookmark", setting(user_id=None), nth=3),
    Breakage("null in a field that needs a value", "lesson", setting(title=None), nth=2),
    Breakage("a value outside the choices", "role", setting(kind="wizard"), nth=3),
    Breakage("text where a number belongs", "examattemptlog", setting(time_spent="long"), nth=1),
    Breakage("more characters than the field holds", "exam", setting(title="x" * 300), copied=True),
    Breakage("a number below the field's minimum", "contentsummarylog", setting(progress=-1), nth=9),
    Breakage("a number that is none", "contentsummarylog", setting(time_spent=float("nan")), copied=True),
    Breakage("a fraction for a whole number", "masterylog", setting(mastery_level=1.7), nth=7),
    Breakage("text for a time", "attemptlog", setting(start_timestamp="yesterday"), nth=9),
    Breakage("an object for text", "usersessionlog", setting(pages={"invented": 1}), nth=3),
    Breakage("text for JSON", "lesson", setting(resources="not JSON"), copied=True),
    Breakage("a NUL character", "usersessionlog", setting(pages="\0"), nth=4),
    Breakage("half a character", "usersessionlog", setting(pages="\ud800"), nth=5),
    Breakage("no dataset, to be inferred", "attemptlog", setting(dataset_id=None), nth=12),
    Breakage("an object without keys", "attemptlog", lambda row: row.update(serialized="{}"), nth=13),
    Breakage("nothing at all", "attemptlog", lambda row: row.update(serialized=""), nth=14),
    Breakage("keys that the model does not have", "usersessionlog", setting(invented=1), nth=2),
    Breakage("a parent that is missing", "learnergroup", below(ABSENT), copied=True),
    Breakage("JSON cut off in a tree", "adhoclearnersgroup", truncated, nth=1),
    Breakage("a model that is not registered", "membership", of_model("spaceship"), copied=True),
    Breakage("a deleted record with live references", "lesson", deleted, nth=5),
    Breakage("a hard deleted record with live references", "attendancesession", hard_deleted, nth=4),
)
"""Breakages that Morango's function survives: each costs the record itself and those that refer to it."""

NOT_UNIQUE = Breakage("a value that another record holds (unique)", "bookmark", setting(), copied=True)
"""Like the broken ones, but which of the two is saved depends on which comes first."""

POISON: Sequence[Breakage] = (
    Breakage("an unknown timezone", "attemptlog", setting(start_timestamp="2026-01-01 00:00:00.0(No/Where)")),
    Breakage("a number for a time", "attemptlog", setting(start_timestamp=5), nth=1),
    Breakage("null for the whole record", "attemptlog", lambda row: row.update(serialized="null"), nth=2),
    Breakage("null where the model's own code iterates", "exam", setting(question_sources=None), copied=True),
    Breakage(
        "contradicting settings", "facilitydataset", setting(learner_can_edit_password=True), copied=True
    ),
)
"""Breakages that abort Morango's function as a whole, each alone; nothing refers to these records."""
