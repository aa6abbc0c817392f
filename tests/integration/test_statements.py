"""The number of SQL statements of a batch, and of a run, does not grow with the number of records."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import Any

import pytest
from django.db import connection, transaction
from django.db.backends.base.base import BaseDatabaseWrapper
from django.test.utils import CaptureQueriesContext
from morango.models import DeletedModels, Store
from morango.models.certificates import Filter

from morango_celery import tasks
from morango_celery.deserialization import deserialize_batch
from morango_celery.messaging.dispatch import CeleryDispatch
from morango_celery.models import Run
from morango_celery.runs.batching import open_batches
from morango_celery.runs.inprocess import run_in_process
from morango_celery.runs.producer import create_run, start
from morango_celery.runs.report import failures
from morango_celery.runs.status import status_of
from morango_celery.serialization import serialize_into_store
from tests.model_zoo.models import PROFILE as MODEL_ZOO
from tests.model_zoo.rows import build_zoo_row
from tests.neighbours.models import PROFILE as NEIGHBOURS
from tests.neighbours.rows import build_row as build_neighbour_row
from tests.neighbours.rows import build_tree
from tests.support.factories import SCHOOL_ID, build_school, build_store_row
from tests.support.run_helpers import MISSING, new_run
from worker.school.models import PROFILE, Unit

pytestmark = pytest.mark.django_db


def statements(rows: list[Store]) -> int:
    Store.objects.bulk_create(rows)
    with transaction.atomic(), CaptureQueriesContext(connection) as queries:
        result = deserialize_batch(PROFILE, [row.id for row in rows])
    assert result.saved + result.deleted + result.failed == len(rows)
    return len(queries)


def test_saving_takes_as_many_statements_for_any_number_of_records() -> None:
    small = statements(list(build_school(250, school_id="01" * 16)))
    large = statements(list(build_school(600, school_id="02" * 16)))
    assert small == large


def learners(number: int) -> Iterator[Store]:
    unit = build_store_row("unit")
    yield unit
    yield from (build_store_row("learner", unit=unit) for _ in range(number))


def test_own_save_takes_as_many_statements_for_any_number_of_records() -> None:
    assert statements(list(learners(3))) == statements(list(learners(300)))


def test_deletions_take_as_many_statements_for_any_number_of_records() -> None:
    def deletions(number: int) -> list[Store]:
        return [build_store_row("lesson", unit_id="ab" * 16, deleted=True) for _ in range(number)]

    assert statements(deletions(3)) == statements(deletions(300))


def test_invalid_records_take_as_many_statements_for_any_number() -> None:
    def invalid(number: int) -> list[Store]:
        return [build_store_row("lesson", unit_id="ab" * 16, title=None) for _ in range(number)]

    assert statements(invalid(3)) == statements(invalid(300))


def clashing(number: int, there: Store) -> list[Store]:
    """Return learners: one claims a row's value, and one the value of another learner."""
    rows = list(learners(number))
    names = [there.source_id, rows[1].source_id]
    return [*rows, *(build_store_row("learner", unit=rows[0], username=name) for name in names)]


@pytest.mark.parametrize("size", [10, 300])
def test_conflicting_values_cost_the_same_beside_any_records(size: int) -> None:
    there = list(learners(1))
    statements(there)

    alone, in_company = (statements(clashing(number, there[1])) for number in (1, size))

    assert in_company == alone


@pytest.mark.parametrize(("most_at_once", "in_vain"), [(0, 0), (1_000, 1)])
def test_group_and_each_conflicting_record_are_written_once(
    most_at_once: int, in_vain: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("morango_celery.deserialization.batch.MAX_RECORDS", most_at_once)
    there = list(learners(1))
    statements(there)
    rows = clashing(10, there[1])
    Store.objects.bulk_create(rows)

    with transaction.atomic(), CaptureQueriesContext(connection) as queries:
        result = deserialize_batch(PROFILE, [row.id for row in rows])

    assert result.failed == 2
    inserts = [query["sql"] for query in queries if 'INTO "school_learner"' in query["sql"]]
    assert ["ON CONFLICT" in insert for insert in inserts] == [True] * (in_vain + 1 + result.failed)


def chain(length: int) -> list[Store]:
    rows = [build_store_row("unit")]
    for _ in range(length - 1):
        rows.append(build_store_row("unit", parent=rows[-1]))
    return rows


def test_chain_takes_as_many_statements_at_any_length() -> None:
    assert statements(chain(3)) == statements(chain(100))


def test_overwriting_takes_as_many_statements_for_any_number_of_records() -> None:
    def again(rows: list[Store]) -> int:
        statements(rows)
        Store.objects.filter(pk__in=[row.id for row in rows]).delete()
        return statements(rows)

    small = again(list(build_school(250, school_id="01" * 16)))
    large = again(list(build_school(600, school_id="02" * 16)))
    assert small == large


def inserts_of_steps(rows: list[Store]) -> int:
    """Return the number of inserts for steps, each of which asks for the one before it."""
    Store.objects.bulk_create(rows)
    with transaction.atomic(), CaptureQueriesContext(connection) as queries:
        result = deserialize_batch(MODEL_ZOO, [row.id for row in rows])
    assert result.saved == len(rows)
    return sum('INSERT INTO "model_zoo_step"' in query["sql"] for query in queries)


def steps(trails: int, numbers: Iterable[int]) -> list[Store]:
    names = [f"{trail} of {trails}" for trail in range(trails)]
    return [build_zoo_row("step", trail=name, number=number) for number in numbers for name in names]


@pytest.mark.parametrize("trails", [2, 50])
def test_waiting_rows_are_written_before_each_query_of_a_models_own(trails: int) -> None:
    assert inserts_of_steps(steps(trails, [1, 2])) == 1 + trails
    assert inserts_of_steps(steps(trails, [3])) == 1 + trails - 1


def test_records_refused_until_others_are_there_are_written_once_more() -> None:
    rows = [*steps(50, [2]), *steps(50, [1])]
    assert inserts_of_steps(rows) == 1 + 50


def statements_of_a_tree(model_name: str, levels: list[int]) -> int:
    """Return the number of statements that the database executed, without those that were put off."""
    rows = build_tree(model_name, levels)
    Store.objects.bulk_create(rows)
    executed = 0

    def count(execute: Callable[..., Any], *args: Any) -> Any:
        nonlocal executed
        result = execute(*args)
        executed += 1
        return result

    with transaction.atomic(), connection.execute_wrapper(count):
        result = deserialize_batch(NEIGHBOURS, [row.id for row in rows])
    assert result.saved == len(rows)
    return executed


@pytest.mark.parametrize("model_name", ["place", "shelf"])
def test_tree_whose_own_code_follows_parents_costs_two_statements_a_level(model_name: str) -> None:
    narrow, wide, deep = (statements_of_a_tree(model_name, levels) for levels in ([2] * 3, [60] * 3, [2] * 9))
    assert wide == narrow
    assert deep == narrow + 2 * 6


def statements_of_guests(places: list[Store], number: int) -> int:
    rows = [build_neighbour_row("guest", place=places[place % len(places)]) for place in range(number)]
    Store.objects.bulk_create(rows)
    with transaction.atomic(), CaptureQueriesContext(connection) as queries:
        assert deserialize_batch(NEIGHBOURS, [row.id for row in rows]).saved == number
    return len(queries)


def test_references_to_earlier_rows_cost_as_many_statements_for_any_number() -> None:
    places = build_tree("place", [5, 50])
    Store.objects.bulk_create(places)
    with transaction.atomic():
        deserialize_batch(NEIGHBOURS, [row.id for row in places])
    assert statements_of_guests(places, 55) == statements_of_guests(places, 500)


def statements_below(model_name: str, number: int) -> int:
    """Return the statements for so many records of a tree, each with a parent of its own that is there
    already."""
    parents = build_tree(model_name, [number])
    Store.objects.bulk_create(parents)
    with transaction.atomic():
        deserialize_batch(NEIGHBOURS, [row.id for row in parents])
    rows = [build_neighbour_row(model_name, parent_id=parent.id) for parent in parents]
    Store.objects.bulk_create(rows)
    with transaction.atomic(), CaptureQueriesContext(connection) as queries:
        assert deserialize_batch(NEIGHBOURS, [row.id for row in rows]).saved == number
    return len(queries)


def test_tree_that_follows_existing_parents_takes_as_many_statements_for_any_number() -> None:
    assert statements_below("place", 5) == statements_below("place", 200)


def test_tree_that_validates_by_existing_parents_takes_as_many_statements_for_any_number() -> None:
    assert statements_below("shelf", 5) == statements_below("shelf", 200)


def statements_of_a_worker(rows: list[Store]) -> int:
    """Return the statements of one message: the attempt, the batch, the ledger, and the end of the run."""
    Store.objects.bulk_create(rows)
    run = start(new_run().pk).run
    (batch,) = open_batches(run)
    with CaptureQueriesContext(connection) as queries:
        counts = tasks.deserialize_batch(batch.pk, batch.ids_sha256)
    assert counts["saved"] == len(rows)
    assert Run.objects.get(pk=run.pk).state == Run.State.COMPLETED
    return len(queries)


def test_message_takes_as_many_statements_for_any_number_of_records() -> None:
    small = statements_of_a_worker(list(build_school(250, school_id="01" * 16)))
    large = statements_of_a_worker(list(build_school(600, school_id="02" * 16)))
    assert small == large


def statements_of_a_run(rows: list[Store]) -> int:
    Store.objects.bulk_create(rows)
    run = new_run(in_process=True)
    with CaptureQueriesContext(connection) as queries:
        done = run_in_process(run)
    assert done.saved == len(rows)
    return len(queries)


def test_run_takes_as_many_statements_for_batches_of_any_size(batch_size: Callable[[int], None]) -> None:
    batch_size(50)
    small = statements_of_a_run(list(learners(199)))
    batch_size(250)
    large = statements_of_a_run(list(learners(999)))
    assert small == large


@pytest.mark.parametrize("number", [1, 100])
def test_waiting_records_are_found_in_one_statement_where_a_batch_holds_them(number: int) -> None:
    Store.objects.bulk_create([*chain(3), build_store_row("spaceship", partition=f"{SCHOOL_ID}:l")])
    run = create_run(PROFILE, under(number), session_notified=True, serialize_first=False)
    with CaptureQueriesContext(connection) as queries:
        opened = start(run.pk).run
    searches = [query for query in queries if 'FROM "morango_store"' in query["sql"]]
    assert (opened.records, opened.open_batches, len(searches)) == (4, 1, 1)


@pytest.mark.parametrize("number", [1, 2, 20])
@pytest.mark.usefixtures("serializable_in_a_transaction")
def test_local_edits_are_looked_for_in_one_statement(number: int) -> None:
    serialize_into_store(PROFILE)  # which gives the instance its identity
    Unit.objects.create(name="edited", school_id="ab" * 16)
    run = create_run(PROFILE, under(number), session_notified=True, serialize_first=True)
    with CaptureQueriesContext(connection) as queries:
        assert start(run.pk).run.state == Run.State.COMPLETED
    about_edits = [query["sql"] for query in queries if "_morango_dirty_bit" in query["sql"]]
    about_counters = [query["sql"] for query in queries if "maxcounter" in query["sql"]]
    assert len(about_edits) == 1
    assert len(about_counters) == 1


@pytest.mark.parametrize("number", [1, 100])
def test_no_model_is_asked_for_of_which_nothing_waits(number: int, batch_size: Callable[[int], None]) -> None:
    batch_size(2)
    lessons = [build_store_row("lesson", unit_id=MISSING) for _ in range(3)]
    Store.objects.bulk_create([*lessons, build_store_row("spaceship", partition=f"{SCHOOL_ID}:l")])
    run = create_run(PROFILE, under(number), session_notified=True, serialize_first=False)
    with CaptureQueriesContext(connection) as queries:
        opened = start(run.pk).run
    searches = [query["sql"] for query in queries if 'FROM "morango_store"' in query["sql"]]
    assert (opened.stage_models, opened.open_batches) == ("lesson + learner", 2)
    # What waits in all, which models do, and the lessons
    assert len(searches) == 3, searches


def test_chain_takes_as_many_statements_for_batches_of_any_size(batch_size: Callable[[int], None]) -> None:
    batch_size(10)
    small = statements_of_a_run(chain(39))
    batch_size(50)
    large = statements_of_a_run(chain(199))
    assert small == large


def under(number: int) -> Filter:
    """Return a filter of so many prefixes, two of which have records."""
    others = [f"{number:032x}:learner" for number in range(number - 2)]
    own = [f"{SCHOOL_ID}:units", f"{SCHOOL_ID}:l"] if number > 1 else [SCHOOL_ID]
    return Filter("\n".join([*others, *own]))


PREFIXES = pytest.mark.parametrize("number", [3, 100, 1_000])


def statements_of_a_filtered_run(sync_filter: Filter, batch_size: Callable[[int], None]) -> int:
    batch_size(20)  # so that the tree is handed out in waves
    rows = [*chain(30), *(build_store_row("lesson", unit_id=MISSING) for _ in range(3))]
    Store.objects.bulk_create(rows)
    run = create_run(PROFILE, sync_filter, serialize_first=True, session_notified=True, in_process=True)
    with CaptureQueriesContext(connection) as queries:
        done = run_in_process(run)
        groups = failures(done)
        status_of(done.pk)
    assert (done.saved, done.failed, [group.count for group in groups]) == (30, 3, [3])
    for model in (Store, Unit, DeletedModels):
        model.objects.all().delete()
    return len(queries)


@PREFIXES
@pytest.mark.usefixtures("serializable_in_a_transaction")
def test_run_takes_as_many_statements_for_any_number_of_prefixes(
    number: int, batch_size: Callable[[int], None]
) -> None:
    serialize_into_store(PROFILE)  # which gives the instance its identity
    one = statements_of_a_filtered_run(under(1), batch_size)
    assert statements_of_a_filtered_run(under(number), batch_size) == one


@PREFIXES
def test_waiting_records_are_counted_in_as_many_statements_for_any_number_of_prefixes(number: int) -> None:
    Store.objects.bulk_create(chain(30))
    run = create_run(PROFILE, under(number), session_notified=True)
    with CaptureQueriesContext(connection) as queries:
        assert status_of(run.pk).waiting == 30
    assert len(queries) == 3  # the run, what waits, and what is quarantined


@PREFIXES
@pytest.mark.usefixtures("serializable_in_a_transaction")
def test_serialization_takes_as_many_statements_for_any_number_of_prefixes(number: int) -> None:
    def statements_under(sync_filter: Filter) -> int:
        for name in "abc":
            Unit.objects.create(name=name, school_id=SCHOOL_ID)
        with CaptureQueriesContext(connection) as queries:
            serialize_into_store(PROFILE, sync_filter)
        assert not Unit.syncing_objects.filter(_morango_dirty_bit=True).exists()
        return len(queries)

    statements_under(under(1))  # which gives the instance its identity
    assert statements_under(under(number)) == statements_under(under(1))


@pytest.fixture
def commits(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[str]]:
    """Yield the commits from here on: a single statement, or a transaction's; empty for one that wrote
    nothing."""
    found: list[str] = []
    pending: list[str] = []
    real = BaseDatabaseWrapper._commit  # type: ignore[attr-defined]  # Django's

    def execute(execute: Callable[..., Any], sql: str, *args: Any) -> Any:
        result = execute(sql, *args)
        words = sql.split()
        if {"INSERT", "UPDATE", "DELETE"} & set(words):
            (pending if connection.in_atomic_block else found).append(sql)
        return result

    def commit(database: Any) -> None:
        real(database)
        found.append("; ".join(pending))
        pending.clear()

    monkeypatch.setattr(BaseDatabaseWrapper, "_commit", commit)
    with connection.execute_wrapper(execute):
        yield found


@pytest.mark.needs_postgresql
@pytest.mark.django_db(transaction=True)
@pytest.mark.usefixtures("redis_url")
@pytest.mark.parametrize(("serialize_first", "statements"), [(False, 12), (True, 13)])
def test_run_of_one_batch_takes_a_fixed_number_of_statements_and_commits(
    serialize_first: bool, statements: int, commits: list[str]
) -> None:
    # Given records under a filter
    serialize_into_store(PROFILE)  # which gives the instance its identity
    Store.objects.bulk_create(build_school(20))
    for _ in range(2):  # statements that lock rows are compiled the first time, in a transaction of their own
        Store.objects.update(dirty_bit=True)
        commits.clear()

        # When a run of them is asked for, and a worker gets its message
        with CaptureQueriesContext(connection) as queries:
            run = create_run(
                PROFILE, Filter(SCHOOL_ID), serialize_first=serialize_first, session_notified=True
            )
            assert CeleryDispatch().start(run)
            tasks.start_run(run.pk)
    # Then they are: the run, that it was sent, that it was begun, what it hands out, and what came of that
    assert len(commits) == 5
    assert sum("morango_celery_" in query["sql"] for query in queries) == statements
    assert Run.objects.get(pk=run.pk).saved == 20
