"""Batches that are written at once, and undone and written group by group when that fails."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from typing import Any

import pytest
from django.db import OperationalError, connection, transaction
from django.test.utils import CaptureQueriesContext
from morango.models import Store, SyncableModel

from morango_celery.deserialization import BatchResult, deserialize_batch
from morango_celery.deserialization.model_code import verb
from tests.model_zoo.models import PROFILE as MODEL_ZOO
from tests.model_zoo.rows import build_zoo_row
from tests.support.factories import app_rows, build_store_row
from worker.school.models import PROFILE, Learner, Lesson

pytestmark = pytest.mark.django_db

MOST = "morango_celery.deserialization.batch.MAX_RECORDS"


def batch(rows: list[Store], profile: str = PROFILE) -> BatchResult:
    with transaction.atomic():
        return deserialize_batch(profile, [row.id for row in rows])


def school() -> list[Store]:
    """Return a record of each model, each referring to the one before it."""
    unit = build_store_row("unit")
    learner = build_store_row("learner", unit=unit)
    lesson = build_store_row("lesson", unit=unit)
    attempt = build_store_row("attempt", learner=learner, lesson=lesson)
    return [unit, learner, lesson, attempt, build_store_row("feedback", attempt=attempt)]


def test_all_models_share_a_savepoint_and_a_check_of_constraints() -> None:
    rows = school()
    Store.objects.bulk_create(rows)

    with transaction.atomic(), CaptureQueriesContext(connection) as queries:
        assert deserialize_batch(PROFILE, [row.id for row in rows]).saved == 5

    made = Counter(verb(query["sql"]) for query in queries)
    checks = 1 if connection.vendor == "postgresql" else 0
    assert (made["SAVEPOINT"], made["RELEASE"], made["SET"]) == (1, 1, checks)


def test_batch_of_which_nothing_is_valid_is_judged_once() -> None:
    rows = [build_store_row("lesson", unit_id="ab" * 16, title=None) for _ in range(3)]
    Store.objects.bulk_create(rows)

    with transaction.atomic(), CaptureQueriesContext(connection) as queries:
        assert deserialize_batch(PROFILE, [row.id for row in rows]).failed == 3

    made = Counter(verb(query["sql"]) for query in queries)
    assert (made["SAVEPOINT"], made["RELEASE"], made["SET"], made["ROLLBACK"]) == (1, 1, 0, 0)


def test_larger_batches_are_written_group_by_group(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(MOST, 4)
    rows = school()
    Store.objects.bulk_create(rows)

    with transaction.atomic(), CaptureQueriesContext(connection) as queries:
        assert deserialize_batch(PROFILE, [row.id for row in rows]).saved == 5

    made = Counter(verb(query["sql"]) for query in queries)
    assert made["SAVEPOINT"] == made["RELEASE"] > 5


def mixed() -> list[Store]:
    """Return records of five models; of each kind, the database, their code or a reference refuses some."""
    unit, broken = build_store_row("unit"), build_store_row("unit", name=None)
    learners = [build_store_row("learner", unit=unit, username=name) for name in ("ada", "bob", "ada", "eve")]
    stranger = build_store_row("learner", unit=unit, username="zoe", school_id="11" * 16)
    lesson = build_store_row("lesson", unit=unit)
    attempts = [build_store_row("attempt", learner=learner, lesson=lesson) for learner in learners]
    attempts.append(build_store_row("attempt", learner=stranger))
    attempts.append(build_store_row("attempt", learner=learners[0], score=2.0))
    return [
        broken,
        unit,
        build_store_row("unit", parent=broken),
        *learners,
        stranger,
        build_store_row("learner", unit=broken, username="sue"),
        lesson,
        build_store_row("lesson", unit_id="ab" * 16),
        *attempts,
        *(build_store_row("feedback", attempt=attempt) for attempt in attempts),
    ]


def left_behind(rows: list[Store], profile: str) -> tuple[Any, ...]:
    """Return the state after a batch of some rows; all of it is undone."""
    with transaction.atomic():
        Store.objects.bulk_create(rows)
        result = batch(rows, profile)
        stored = list(
            Store.objects.order_by("id").values_list(
                "id", "dirty_bit", "deserialization_error", "deserialization_exception"
            )
        )
        found = app_rows(profile)
        transaction.set_rollback(True)
    return result, stored, found


def deleted(row: Store) -> Store:
    """Return the same record once more, deleted elsewhere."""
    return build_zoo_row(row.model_name, id=row.id, source_id=row.source_id, deleted=True)


def deletions() -> list[Store]:
    """Return deletions in two models, one of them forbidden, and records refused by code of two others."""
    clubs = [build_zoo_row("club") for _ in range(2)]
    members = [build_zoo_row("member", club=clubs[0], number=number) for number in range(3)]
    there = [*clubs, *members, build_zoo_row("letter", sender=members[0])]
    Store.objects.bulk_create(there)
    assert batch(there, MODEL_ZOO).saved == len(there)
    gone = [clubs[1], *members[:2]]
    Store.objects.filter(pk__in=[row.id for row in gone]).delete()
    return [
        *map(deleted, gone),
        build_zoo_row("person", home_id="ab" * 16, name="Nobody"),
        *(build_zoo_row("step", trail="south", number=number) for number in (1, 2, 4)),
    ]


@pytest.mark.parametrize(
    ("make", "profile", "counts"), [(mixed, PROFILE, (11, 0, 12)), (deletions, MODEL_ZOO, (2, 2, 3))]
)
def test_culprits_and_all_others_end_as_if_each_group_had_been_written_alone(
    make: Callable[[], list[Store]],
    profile: str,
    counts: tuple[int, int, int],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    rows = make()
    at_once = left_behind(rows, profile)
    monkeypatch.setattr(MOST, 0)

    assert at_once == left_behind(rows, profile)
    result = at_once[0]
    assert (result.saved, result.deleted, result.failed) == counts


def execute_with(number: int, instead: str, rows: list[Store]) -> tuple[BatchResult, int]:
    """Execute a batch, and another statement instead of the one with this number.

    :returns: its result, and how many statements there were
    """
    executed = 0

    def execute_one(execute: Callable[..., Any], sql: Any, parameters: Any, *others: Any) -> Any:
        nonlocal executed
        executed += 1
        return execute(instead, None, *others) if executed == number else execute(sql, parameters, *others)

    with transaction.atomic(), connection.execute_wrapper(execute_one):
        return deserialize_batch(PROFILE, [row.id for row in rows]), executed


def statement_numbers(rows: list[Store]) -> range:
    """Return the numbers of all statements of a batch from its savepoint on."""
    with transaction.atomic():
        _, executed = execute_with(0, "", rows)
        transaction.set_rollback(True)
    assert executed > 10
    return range(1 + BEFORE_THE_SAVEPOINT, executed + 1)


BEFORE_THE_SAVEPOINT = 2
"""The statement that takes a lock, and the savepoint itself."""


def test_any_refused_statement_has_all_records_saved_group_by_group() -> None:
    rows = school()
    Store.objects.bulk_create(rows)
    refused = "SELECT 1/0" if connection.vendor == "postgresql" else "SELECT json('{')"
    for number in statement_numbers(rows):
        with transaction.atomic():
            result, executed = execute_with(number, refused, rows)
            found = sum(map(len, app_rows(PROFILE).values()))
            assert (result.saved, result.failed, found) == (5, 0, 5), number
            assert executed > number + 10  # of the other attempt
            assert not Store.objects.filter(dirty_bit=True).exists()
            transaction.set_rollback(True)


DEADLOCK = "DO $$ BEGIN RAISE EXCEPTION 'deadlock detected' USING ERRCODE = '40P01'; END $$"


@pytest.mark.skipif("connection.vendor != 'postgresql'", reason="is about PostgreSQL")
def test_error_of_no_record_is_raised_at_once_for_any_statement() -> None:
    rows = school()
    Store.objects.bulk_create(rows)
    for number in statement_numbers(rows):
        with pytest.raises(OperationalError, match="deadlock"), CaptureQueriesContext(connection) as queries:
            execute_with(number, DEADLOCK, rows)
        assert sum("DO $$" in query["sql"] for query in queries) == 1
        assert sum('"morango_store" SET dirty_bit' in query["sql"] for query in queries) <= 1
        assert Store.objects.filter(dirty_bit=True).count() == 5
        assert not any(app_rows(PROFILE).values())


@pytest.mark.parametrize("most_at_once", [0, 1_000])
def test_reference_that_points_nowhere_is_found_before_the_commit(
    most_at_once: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(MOST, most_at_once)

    def save_elsewhere(learner: Learner, *arguments: Any, **options: Any) -> None:
        if learner.username == "astray":
            learner.unit_id = "ab" * 16
        SyncableModel.save(learner, *arguments, **options)

    monkeypatch.setattr(Learner, "save", save_elsewhere)
    unit, *_ = rows = school()
    rows.append(build_store_row("learner", unit=unit, username="astray"))
    rows.append(build_store_row("attempt", learner=rows[-1]))
    Store.objects.bulk_create(rows)

    with transaction.atomic():
        result = deserialize_batch(PROFILE, [row.id for row in rows], strict=True)

    assert (result.saved, result.failed) == (5, 2)
    errors = dict(
        Store.objects.exclude(deserialization_error=None).values_list("id", "deserialization_error")
    )
    assert errors.keys() == {rows[-1].id, rows[-2].id}
    assert "unit_id" in errors[rows[-2].id]


def executed(rows: list[Store]) -> tuple[BatchResult, list[str]]:
    """Execute a batch.

    :returns: its result, and its statements
    """
    Store.objects.bulk_create(rows)
    with transaction.atomic(), CaptureQueriesContext(connection) as queries:
        result = deserialize_batch(PROFILE, [row.id for row in rows])
    return result, [query["sql"] for query in queries]


def looked_up(statements: list[str]) -> int:
    """Return the number of queries for references in app tables and the Store."""
    return sum("UNION ALL SELECT NULL" in statement for statement in statements)


def test_references_of_all_models_are_looked_up_together() -> None:
    unit, learner, lesson, attempt, _ = there = school()
    executed(there)
    new_learner = build_store_row("learner", unit=unit)
    rows = [
        new_learner,
        build_store_row("lesson", unit=unit),
        build_store_row("attempt", learner=learner, lesson=lesson),
        build_store_row("attempt", learner=new_learner, lesson=lesson),
        build_store_row("feedback", attempt=attempt),
    ]

    result, statements = executed(rows)

    assert (result.saved, looked_up(statements)) == (5, 1)
    # The others: a lock, two for a savepoint, a claim, the learner's unit, an upsert per model, and a check
    # of the constraints; or, on SQLite, what marks Store rows as clean
    assert len(statements) == 11


def test_cascades_of_a_deletion_are_looked_up_again() -> None:
    unit, learner, _, attempt, _ = there = school()
    executed(there)
    Store.objects.filter(pk=learner.pk).delete()
    gone = build_store_row("learner", id=learner.id, source_id=learner.source_id, unit=unit, deleted=True)
    rows = [build_store_row("lesson", unit=unit), gone, build_store_row("feedback", attempt=attempt)]

    result, statements = executed(rows)

    assert (result.saved, result.deleted, result.failed) == (1, 1, 1)
    assert looked_up(statements) == 2
    assert Store.objects.get(pk=rows[2].pk).deserialization_error == (
        f"['attempt with id {attempt.id} failed to deserialize']"
    )


def test_rows_that_code_of_a_model_deletes_are_looked_up_again(monkeypatch: pytest.MonkeyPatch) -> None:
    unit, _, lesson, *_ = there = school()
    executed(there)
    save = Learner.save

    def delete_the_lesson_and_save(learner: Learner, *arguments: Any, **options: Any) -> None:
        Lesson.objects.filter(pk=lesson.id).delete()
        save(learner, *arguments, **options)

    monkeypatch.setattr(Learner, "save", delete_the_lesson_and_save)
    learner = build_store_row("learner", unit=unit)

    result, statements = executed([learner, build_store_row("attempt", learner=learner, lesson=lesson)])

    assert (result.saved, result.propagated, result.failed) == (1, 1, 0)
    assert looked_up(statements) == 2
