"""Store rows in the state in which a sync leaves them, made up: the same seed makes the same rows.

The mix of a school is that of Morango's users: a tree of units (1 %), learners (4 %), lessons (5 %),
mostly logs of the learners' work (75 %), and feedback that refers to these logs (15 %). In the table they
lie model by model.
"""

from __future__ import annotations

import json
import random
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

from morango.models.core import SyncableModel

from worker.school.models import PROFILE

SAVED_BY = "1d" * 16
"""The Morango instance that last saved the rows."""

SYNCS = 8
"""Number of schools, each of the given size, in the case "schools"; each is a sync of its own."""

WARM_UP_SYNCS = 2
"""So many of them are not counted: who serves them was just started."""

TREE_CHILDREN = 10


class StoreRow(NamedTuple):
    """The columns of ``morango_store`` that are not NULL, by their names."""

    id: str
    profile: str
    model_name: str
    partition: str
    source_id: str
    serialized: str
    self_ref_fk: str
    dirty_bit: bool = True
    deleted: bool = False
    hard_deleted: bool = False
    last_saved_instance: str = SAVED_BY
    last_saved_counter: int = 1
    conflicting_serialized_data: str = ""


COLUMNS = tuple("_self_ref_fk" if name == "self_ref_fk" else name for name in StoreRow._fields)


def school_id(number: int) -> str:
    """Return the id of a school, which is also its partition prefix."""
    return f"{number + 1:032x}"


class School:
    """Makes the rows of one school."""

    def __init__(self, number: int, seed: int = 0) -> None:
        self.id = school_id(number)
        self.random = random.Random(f"{number} {seed}")

    def row(self, model_name: str, source_id: str, partition: str, **fields: Any) -> StoreRow:
        partition = f"{self.id}:{partition}"
        key = SyncableModel.compute_namespaced_id(partition, source_id, model_name)
        partition = partition.replace(SyncableModel.ID_PLACEHOLDER, key)
        morango = {"id": key, "_morango_source_id": source_id, "_morango_partition": partition}
        return StoreRow(
            key,
            PROFILE,
            model_name,
            partition,
            source_id,
            json.dumps({**morango, **fields}),
            fields.get("parent_id") or "",
        )

    def unit(self, number: int, parent_id: str | None, **fields: Any) -> StoreRow:
        fields = {"school_id": self.id, "parent_id": parent_id, "name": f"Unit {number}", **fields}
        return self.row("unit", f"unit-{number}", "units", **fields)

    def units(self, count: int, parent_of: Callable[[int], int], **fields: Any) -> Iterator[StoreRow]:
        """Yield a tree: unit 0, and the others below it.

        :param parent_of: the number of a unit's parent, less than its own
        """
        ids: list[str] = []
        for number in range(count):
            row = self.unit(number, ids[parent_of(number)] if number else None, **fields)
            ids.append(row.id)
            yield row

    def learner(self, number: int, unit_id: str, **fields: Any) -> StoreRow:
        name = f"Learner {number} of {self.random.choice('ABCDEFGHIJ')}"
        fields = {
            "school_id": self.id,
            "unit_id": unit_id,
            "username": f"learner{number}-{self.id[-6:]}",
            "full_name": name,
            "search_name": name.casefold(),
            "birth_year": self.random.randint(1990, 2020),
            **fields,
        }
        return self.row("learner", f"learner-{number}", f"learner:{SyncableModel.ID_PLACEHOLDER}", **fields)

    def lesson(self, number: int, unit_id: str, **fields: Any) -> StoreRow:
        fields = {
            "school_id": self.id,
            "unit_id": unit_id,
            "title": f"Lesson {number}",
            "opens_at": None,
            **fields,
        }
        return self.row("lesson", f"lesson-{number}", "lessons", **fields)

    def attempt(self, number: int, learner_id: str, lesson_id: str | None, **fields: Any) -> StoreRow:
        random = self.random.random()
        fields = {
            "learner_id": learner_id,
            "lesson_id": lesson_id,
            "kind": ("exercise", "quiz", "survey")[number % 3],
            "score": round(random, 3),
            "answered_at": f"2026-01-{1 + number % 28:02}T{number % 24:02}:04:05.{int(random * 1e6):06}Z",
            "answer": f"Answer {number}: {random}",
            **fields,
        }
        return self.row("attempt", f"attempt-{number}", f"learner:{learner_id}", **fields)

    def feedback(self, number: int, attempt_id: str, learner_id: str, **fields: Any) -> StoreRow:
        fields = {"attempt_id": attempt_id, "text": f"Feedback {number}", **fields}
        return self.row("feedback", f"feedback-{number}", f"learner:{learner_id}", **fields)


def ten_children(number: int) -> int:
    return (number - 1) // TREE_CHILDREN


def school(records: int, number: int = 0) -> Iterator[StoreRow]:
    """Yield a school of so many sound rows, at least 100; all their references stay among them."""
    return _school(School(number), records)


def _school(
    made: School,
    records: int,
    flaws: dict[str, dict[str, Any]] | None = None,
    clashing_learners: int = 0,
) -> Iterator[StoreRow]:
    """
    :param flaws: fields, by model, that every record of it gets
    :param clashing_learners: so many pairs of learners, whom nothing refers to, share a username
    """
    flawed = flaws or {}
    units, lessons, feedback = max(1, records // 100), max(1, records // 20), records * 15 // 100
    learners = max(1, records // 25)
    attempts = records - units - lessons - feedback - learners
    unit_ids, learner_ids, lesson_ids = [], [], []
    for row in made.units(units, ten_children, **flawed.get("unit", {})):
        unit_ids.append(row.id)
        yield row
    for number in range(learners):
        clash = number < 2 * clashing_learners
        fields = {"username": f"clash{number // 2}"} if clash else {}
        row = made.learner(number, unit_ids[number % units], **fields, **flawed.get("learner", {}))
        if not clash:
            learner_ids.append(row.id)
        yield row
    for number in range(lessons):
        row = made.lesson(number, unit_ids[number % units], **flawed.get("lesson", {}))
        lesson_ids.append(row.id)
        yield row
    heard: list[tuple[str, str]] = []
    for number in range(attempts):
        learner_id = learner_ids[number % len(learner_ids)]
        lesson_id = lesson_ids[number % lessons] if number % 7 else None
        row = made.attempt(number, learner_id, lesson_id, **flawed.get("attempt", {}))
        if len(heard) < feedback:
            heard.append((row.id, learner_id))
        yield row
    for number, (attempt_id, learner_id) in enumerate(heard):
        yield made.feedback(number, attempt_id, learner_id, **flawed.get("feedback", {}))


def schools(records: int) -> Iterator[StoreRow]:
    """Yield `SYNCS` schools of so many rows each."""
    for number in range(SYNCS):
        yield from school(records, number)


def invalid(records: int) -> Iterator[StoreRow]:
    """Yield a school each of whose rows is refused by its model."""
    flaws: dict[str, dict[str, Any]] = {
        "unit": {"name": "n" * 101},
        "learner": {"birth_year": 1800},
        "lesson": {"title": None},
        "attempt": {"score": 2.0},
        "feedback": {"text": None},
    }
    return _school(School(0), records, flaws)


def clashing(records: int) -> Iterator[StoreRow]:
    """Yield a school in which one row in a hundred has another row's username: one of each two must fail."""
    return _school(School(0), records, clashing_learners=records // 100)


def chain(records: int) -> Iterator[StoreRow]:
    """Units, each below the one before."""
    return School(0).units(records, lambda number: number - 1)


def tree(records: int) -> Iterator[StoreRow]:
    """Units, ten below each."""
    return School(0).units(records, ten_children)


FAT_BYTES = 40_000


def fat(records: int) -> Iterator[StoreRow]:
    """Yield attempts of a learner, each with an answer of so many bytes."""
    made = School(0)
    unit = made.unit(0, None)
    learner = made.learner(0, unit.id)
    yield from (unit, learner)
    for number in range(records - 2):
        yield made.attempt(number, learner.id, None, answer=f"{number:08} " * (FAT_BYTES // 9))


def nothing(records: int) -> Iterator[StoreRow]:
    """Yield no row: the records of this case come from elsewhere."""
    return iter(())


CASES: dict[str, Callable[[int], Iterator[StoreRow]]] = {
    "school": school,
    "schools": schools,
    "invalid": invalid,
    "clashing": clashing,
    "chain": chain,
    "tree": tree,
    "fat": fat,
    "oplog": nothing,
    "messages": nothing,
    "payloads": nothing,
}
