"""Store rows of the sample school, as a sync leaves them, and app rows to compare with.

Ids and partitions are computed as Morango computes them, so the rows would pass its checks on a push.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator
from itertools import count, islice
from typing import Any

from django.apps import apps
from django.core.serializers.json import DjangoJSONEncoder
from morango.models import Store, SyncableModel

from tests.support import tables
from worker.school.models import PROFILE

SCHOOL_ID = "5c" * 16
"""The primary partition of everything built here, unless `school_id` says otherwise."""

SAVED_BY = "1d" * 16
"""The Morango instance that last saved the rows."""

_DEFAULTS: dict[str, dict[str, Any]] = {
    "unit": {"school_id": SCHOOL_ID, "parent_id": None, "name": "Unit"},
    "learner": {"school_id": SCHOOL_ID, "full_name": "Ada Example", "search_name": "", "birth_year": 2012},
    "lesson": {"school_id": SCHOOL_ID, "title": "Fractions", "opens_at": None},
    "attempt": {
        "lesson_id": None,
        "kind": "exercise",
        "score": 0.5,
        "answered_at": "2026-01-02T03:04:05.000006Z",
        "answer": "",
    },
    "feedback": {"text": "Well done"},
}
_numbers = count(1)


def store_row(model_name: str, **arguments: Any) -> Store:
    """Save a `build_store_row`."""
    row = build_store_row(model_name, **arguments)
    row.save(force_insert=True)
    return row


def build_store_row(
    model_name: str,
    *,
    id: str | None = None,  # noqa: A002
    source_id: str | None = None,
    partition: str | None = None,
    profile: str = PROFILE,
    dirty: bool = True,
    deleted: bool = False,
    hard_deleted: bool = False,
    serialized: str | None = None,
    school_id: str = SCHOOL_ID,
    last_saved_counter: int = 1,
    columns: dict[str, Any] | None = None,
    **fields: Any,
) -> Store:
    """Return an unsaved Store row.

    :param source_id: what the id is computed from; by default different for each row
    :param serialized: the JSON text itself, valid or not, instead of one made from `fields`
    :param columns: further columns of the Store row, such as ``deserialization_error``
    :param fields: keys of the serialized record over sound defaults. A foreign key is given by its column
        (``unit_id="..."``) or as the Store row it points at (``unit=row``); unknown keys are kept
    """
    data = dict(_DEFAULTS.get(model_name, {}))
    if "school_id" in data:
        data["school_id"] = school_id
    attempt = fields.get("attempt")
    for name, value in fields.items():
        if isinstance(value, Store):
            data[f"{name}_id"] = value.id
        else:
            data[name] = value
    source_id = source_id or f"{model_name}-{next(_numbers)}"
    if model_name == "learner":
        data.setdefault("username", source_id)
    if partition is None:
        partition = (
            attempt.partition if isinstance(attempt, Store) else _partition(model_name, school_id, data)
        )
    # The keys' values may be nonsense on purpose; ids and partitions are text all the same.
    id = id or SyncableModel.compute_namespaced_id(partition, source_id, model_name)  # noqa: A001
    partition = partition.replace(SyncableModel.ID_PLACEHOLDER, id)
    if serialized is None:
        data = {"id": id, "_morango_source_id": source_id, "_morango_partition": partition, **data}
        serialized = "" if hard_deleted else json.dumps(data, cls=DjangoJSONEncoder)
    return Store(
        id=id,
        profile=profile,
        model_name=model_name,
        partition=partition,
        source_id=source_id,
        serialized=serialized,
        dirty_bit=dirty,
        deleted=deleted or hard_deleted,
        hard_deleted=hard_deleted,
        last_saved_instance=SAVED_BY,
        last_saved_counter=last_saved_counter,
        _self_ref_fk=data.get("parent_id") or "",
        **(columns or {}),
    )


def _partition(model_name: str, school_id: str, data: dict[str, Any]) -> str:
    return {
        "unit": f"{school_id}:units",
        "learner": f"{school_id}:learner:{SyncableModel.ID_PLACEHOLDER}",
        "lesson": f"{school_id}:lessons",
        "attempt": f"{school_id}:learner:{data.get('learner_id')}",
        "feedback": f"{school_id}:learner:{data.get('learner_id')}",
    }.get(model_name, f"{school_id}:{model_name}")


def fill_store(rows: int, *, dirty: bool = True, school_id: str = SCHOOL_ID) -> Counter[str]:
    """Save a school of so many Store rows in few statements, and return how many there are of each model.

    One in a hundred is a unit (a tree of ten children a node), four are learners, five lessons, five
    feedback, and the rest attempts. All are valid, and all that they refer to is among them. The same
    arguments make the same ids.
    """
    made: Counter[str] = Counter()
    stream = build_school(rows, dirty=dirty, school_id=school_id)
    while batch := list(islice(stream, 2000)):
        Store.objects.bulk_create(batch)
        made.update(row.model_name for row in batch)
    return made


def build_school(rows: int, *, dirty: bool = True, school_id: str = SCHOOL_ID) -> Iterator[Store]:
    """Return the rows of `fill_store`, unsaved; targets of references come first."""
    units = max(1, rows // 100)
    learners = max(1, rows * 4 // 100)
    lessons = max(1, rows * 5 // 100)
    feedback = rows * 5 // 100
    attempts = rows - units - learners - lessons - feedback
    if attempts < 1:
        raise ValueError("A school needs at least 4 rows.")

    def build(model_name: str, number: int, **fields: Any) -> Store:
        return build_store_row(
            model_name,
            source_id=f"{model_name}-of-school-{number}",
            dirty=dirty,
            school_id=school_id,
            **fields,
        )

    unit_rows: list[Store] = []
    for number in range(units):
        parent = unit_rows[(number - 1) // 10].id if number else None
        unit_rows.append(build("unit", number, name=f"Unit {number}", parent_id=parent))
    yield from unit_rows
    learner_rows = [
        build(
            "learner",
            number,
            unit=unit_rows[number % units],
            username=f"learner{number}-{school_id[:8]}",
            full_name=f"Learner {number}",
            search_name=f"learner {number}",
            birth_year=1990 + number % 30,
        )
        for number in range(learners)
    ]
    yield from learner_rows
    lesson_rows = [
        build("lesson", number, unit=unit_rows[number % units], title=f"Lesson {number}")
        for number in range(lessons)
    ]
    yield from lesson_rows
    for number in range(attempts):
        attempt = build(
            "attempt",
            number,
            learner=learner_rows[number % learners],
            lesson_id=lesson_rows[number % lessons].id if number % 7 else None,
            score=number % 11 / 10,
            answer=f"Answer {number}",
        )
        yield attempt
        if number < feedback:
            yield build("feedback", number, attempt=attempt, text=f"Feedback {number}")


def app_rows(profile: str = PROFILE) -> dict[str, list[dict[str, Any]]]:
    """Return every app row with all its columns, by table, in id order, to compare databases.

    Tables of syncable models that aren't registered themselves are included, and rows that managers hide.
    """
    models = [
        model
        for model in apps.get_models()
        if getattr(model, "morango_profile", None) == profile and not model._meta.proxy
    ]
    filled = tables.filled([model._meta.db_table for model in models])
    return {
        str(model._meta.model_name): list(model._base_manager.order_by("pk").values())
        if model._meta.db_table in filled
        else []
        for model in models
    }
