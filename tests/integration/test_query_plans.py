"""Plans of PostgreSQL for the rows under a filter: an index finds the partitions where that helps."""

from __future__ import annotations

import re
from typing import Any

import pytest
from django.db import connection
from morango.models.certificates import Filter

from morango_celery.deserialization import StoreModelSource
from morango_celery.reading.prefixes import FEW
from worker.school.models import PROFILE, Lesson

pytestmark = [pytest.mark.needs_postgresql, pytest.mark.django_db]

SCHOOLS, LEARNERS = 100, 200
ROWS = """
    INSERT INTO morango_store (
        id, profile, model_name, partition, source_id, serialized, dirty_bit, deleted, hard_deleted,
        last_saved_instance, last_saved_counter, conflicting_serialized_data, _self_ref_fk
    )
    SELECT md5(school || ' ' || learner)::uuid, 'school', 'lesson',
        lpad(school::text, 32, '0') || ':' || learner, '', repeat('x', 500), true, false, false,
        md5('')::uuid, 1, '', ''
    FROM generate_series(1, %s) AS school, generate_series(1, %s) AS learner
"""


@pytest.fixture
def rows(db: None) -> None:
    """Rows of all schools wait, and each of them has a partition of its own."""
    with connection.cursor() as cursor:
        cursor.execute(ROWS, [SCHOOLS, LEARNERS])
        cursor.execute("ANALYZE morango_store")


def prefixes(schools: int, learners: int) -> list[str]:
    return [
        f"{school:032}:{learner}"
        for school in range(1, schools + 1)
        for learner in range(100, 100 + learners)
    ]


def plan(chosen: list[str]) -> tuple[str, int]:
    """Return the plan for the rows under the prefixes, and their number."""
    source = StoreModelSource(PROFILE, Filter("\n".join(chosen)), models=[Lesson])
    queryset: Any
    (queryset,) = source.querysets()
    ids = queryset.char_ids_list()
    text: str = ids.explain()
    return text, len(ids)


@pytest.mark.parametrize(
    "chosen",
    [prefixes(1, 1), prefixes(3, 1), prefixes(1, FEW), prefixes(1, FEW + 1), prefixes(3, 60)],
    ids=["one", "three", "few", "many of one school", "many of three"],
)
def test_index_finds_few_rows_among_many(rows: None, chosen: list[str]) -> None:
    text, number = plan(chosen)
    assert number == len(chosen)
    assert re.search(r"Index Cond: .*partition ~?>=", text), text
    assert "Seq Scan" not in text


def test_many_prefixes_are_hashed(rows: None) -> None:
    text, number = plan(prefixes(50, 50))
    assert number == 2_500
    assert "hashed SubPlan" in text
    assert "~~" not in text  # LIKE, for each row and prefix
