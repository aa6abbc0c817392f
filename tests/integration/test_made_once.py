"""SQL that is made once: the values in it are those of each call, taken literally."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest
from morango.models import Store

from morango_celery.reading import made_once
from morango_celery.reading.made_once import fetch
from morango_celery.reading.prefixes import starts_with_any
from morango_celery.runs import plan
from morango_celery.runs.producer import create_run
from tests.factories import SCHOOL_ID, build_store_row
from worker.school.models import PROFILE

pytestmark = pytest.mark.django_db

made: list[int] = []
"""For how many values a query was made, each time."""

NAMES = ["a_c", "a%c", "a\\c", "abc", "%", "_", "é", "'", "s%s"]


@pytest.fixture(autouse=True)
def _nothing_is_made(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(made_once, "_made", {})
    made.clear()


def under(values: Sequence[str]) -> list[str]:
    """Return the partitions that begin with one of the values."""

    def query(values: Sequence[str]) -> Any:
        made.append(len(values))
        found = starts_with_any("partition", values[1:])
        return Store.objects.filter(found, profile=values[0]).values_list("profile", "partition")

    rows = fetch("a test", ("partition", "profile"), query, [PROFILE, *values])
    assert {profile for _, profile in rows} <= {PROFILE}
    return sorted(partition for partition, _ in rows)


def test_each_call_has_its_values_and_no_query_is_made_twice() -> None:
    Store.objects.bulk_create([build_store_row("unit", partition=name) for name in NAMES])
    Store.objects.bulk_create([build_store_row("unit", partition="abc", profile="another")])
    for name in NAMES:
        assert under([name]) == [name]
    assert under(["a_", "s%s"]) == ["a_c", "s%s"]
    assert under(["nothing", "é"]) == ["é"]
    assert under(["a"]) == ["a%c", "a\\c", "a_c", "abc"]
    assert made == [2, 3]


def test_no_more_is_kept_than_there_is_room_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(made_once, "MOST", 3)
    for number in range(1, 11):
        under(["x"] * number)
        assert len(made_once._made) <= 3


def test_what_waits_is_looked_for_with_sql_that_is_made_once(monkeypatch: pytest.MonkeyPatch) -> None:
    schools = [f"{number:032x}" for number in range(3)]
    rows = [build_store_row("lesson", unit_id="ab" * 16, school_id=school) for school in schools]
    Store.objects.bulk_create([*rows, build_store_row("unit", school_id=SCHOOL_ID)])
    steps = plan.steps(PROFILE)
    for school, row in zip(schools, rows, strict=True):
        run = create_run(PROFILE, school)
        found = plan.remainder(run, steps, rows=10, size_bytes=10_000)
        assert found is not None
        assert [store_id for store_id, _ in found.sized_ids] == [row.id]
        monkeypatch.setattr(plan, "WaitingSource", None)  # from the second one on nothing is made
