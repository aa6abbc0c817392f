"""The number of SQL statements of a batch, and of a run, does not grow with the number of records."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest
from django.db import connection, transaction
from django.test.utils import CaptureQueriesContext
from morango.models import Store

from morango_celery import tasks
from morango_celery.deserialize import deserialize_batch
from morango_celery.models import Run
from morango_celery.runs.inprocess import run_in_process
from morango_celery.runs.producer import open_batches, start
from tests.factories import build_school, build_store_row
from tests.integration.ledger import new_run
from tests.variety.models import PROFILE as VARIETY
from tests.variety.rows import build_variety_row
from worker.school.models import PROFILE

pytestmark = pytest.mark.django_db


def statements(rows: list[Store]) -> int:
    Store.objects.bulk_create(rows)
    with transaction.atomic(), CaptureQueriesContext(connection) as queries:
        result = deserialize_batch(PROFILE, [row.id for row in rows])
    assert result.saved + result.deleted + result.failed == len(rows)
    return len(queries)


def test_saving_every_model_of_a_school() -> None:
    small = statements(list(build_school(250, school_id="01" * 16)))
    large = statements(list(build_school(600, school_id="02" * 16)))
    assert small == large


def learners(number: int) -> Iterator[Store]:
    unit = build_store_row("unit")
    yield unit
    yield from (build_store_row("learner", unit=unit) for _ in range(number))


def test_a_model_with_a_save_of_its_own() -> None:
    assert statements(list(learners(3))) == statements(list(learners(300)))


def test_deleting() -> None:
    def deletions(number: int) -> list[Store]:
        return [build_store_row("lesson", unit_id="ab" * 16, deleted=True) for _ in range(number)]

    assert statements(deletions(3)) == statements(deletions(300))


def test_records_that_are_not_valid() -> None:
    def invalid(number: int) -> list[Store]:
        return [build_store_row("lesson", unit_id="ab" * 16, title=None) for _ in range(number)]

    assert statements(invalid(3)) == statements(invalid(300))


def clashing(number: int, there: Store) -> list[Store]:
    """Learners of whom one claims a value that a row has, and one a value that another learner claims."""
    rows = list(learners(number))
    names = [there.source_id, rows[1].source_id]
    return [*rows, *(build_store_row("learner", unit=rows[0], username=name) for name in names)]


@pytest.mark.parametrize("size", [10, 300])
def test_values_that_others_have_cost_the_same_in_any_company(size: int) -> None:
    there = list(learners(1))
    statements(there)

    alone, in_company = (statements(clashing(number, there[1])) for number in (1, size))

    assert in_company == alone


def test_a_group_and_each_of_its_rivals_are_written_once() -> None:
    there = list(learners(1))
    statements(there)
    rows = clashing(10, there[1])
    Store.objects.bulk_create(rows)

    with transaction.atomic(), CaptureQueriesContext(connection) as queries:
        result = deserialize_batch(PROFILE, [row.id for row in rows])

    assert result.failed == 2
    inserts = [query["sql"] for query in queries if 'INTO "school_learner"' in query["sql"]]
    assert ["ON CONFLICT" in insert for insert in inserts] == [True] * (1 + result.failed)


def chain(length: int) -> list[Store]:
    rows = [build_store_row("unit")]
    for _ in range(length - 1):
        rows.append(build_store_row("unit", parent=rows[-1]))
    return rows


def test_a_chain() -> None:
    assert statements(chain(3)) == statements(chain(100))


def test_saving_what_is_there_already() -> None:
    def again(rows: list[Store]) -> int:
        statements(rows)
        Store.objects.filter(pk__in=[row.id for row in rows]).delete()
        return statements(rows)

    small = again(list(build_school(250, school_id="01" * 16)))
    large = again(list(build_school(600, school_id="02" * 16)))
    assert small == large


def inserts_of_steps(trails: int) -> int:
    """What writing steps of so many trails takes, of which each wants the one before it to be there."""
    rows = [
        build_variety_row("step", trail=str(trail), number=n) for n in (1, 2, 3) for trail in range(trails)
    ]
    Store.objects.bulk_create(rows)
    with transaction.atomic(), CaptureQueriesContext(connection) as queries:
        result = deserialize_batch(VARIETY, [row.id for row in rows])
    assert result.saved == len(rows)
    return sum('INSERT INTO "variety_step"' in query["sql"] for query in queries)


def test_records_that_their_own_code_refuses_until_others_are_there() -> None:
    assert inserts_of_steps(2) == inserts_of_steps(50) == 3


def statements_of_a_worker(rows: list[Store]) -> int:
    """What one message costs: the attempt, the batch, the ledger, and that the run is then at its end."""
    Store.objects.bulk_create(rows)
    run = start(new_run().pk).run
    (batch,) = open_batches(run)
    with CaptureQueriesContext(connection) as queries:
        counts = tasks.deserialize_batch(batch.pk, batch.store_ids)
    assert counts["saved"] == len(rows)
    assert Run.objects.get(pk=run.pk).state == Run.State.COMPLETED
    return len(queries)


def test_a_workers_message() -> None:
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


def test_a_run_of_as_many_batches(batch_size: Callable[[int], None]) -> None:
    batch_size(50)
    small = statements_of_a_run(list(learners(199)))
    batch_size(250)
    large = statements_of_a_run(list(learners(999)))
    assert small == large


def test_a_chain_of_as_many_batches(batch_size: Callable[[int], None]) -> None:
    batch_size(10)
    small = statements_of_a_run(chain(39))
    batch_size(50)
    large = statements_of_a_run(chain(199))
    assert small == large
