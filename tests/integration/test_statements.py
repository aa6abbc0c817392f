"""The number of SQL statements of a batch does not grow with the number of records."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from django.db import connection, transaction
from django.test.utils import CaptureQueriesContext
from morango.models import Store

from morango_celery.deserialize import deserialize_batch
from tests.factories import build_school, build_store_row
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


def test_a_chain() -> None:
    def chain(length: int) -> list[Store]:
        rows = [build_store_row("unit")]
        for _ in range(length - 1):
            rows.append(build_store_row("unit", parent=rows[-1]))
        return rows

    assert statements(chain(3)) == statements(chain(100))
