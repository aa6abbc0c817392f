"""Comparison with Morango: what differs is found and named, and nothing is left behind."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any
from unittest.mock import Mock, patch

import pytest
from django.db import connection
from morango.models import DeletedModels, Store
from morango.models.certificates import Filter

from morango_celery.comparison import Request, compare
from morango_celery.comparison.compare import TIMEOUTS
from morango_celery.models import Run
from morango_celery.runs.inprocess import rehearse
from tests.support.dump import dump
from tests.support.factories import SCHOOL_ID, fill_store, store_row
from tests.support.further_columns import MARK, further_columns
from worker.school.models import PROFILE, Lesson, Unit

pytestmark = pytest.mark.django_db(transaction=True)


def planted(change: Callable[[], object]) -> Any:
    """Let our pipeline do a further thing at its end."""

    def altered(*arguments: Any) -> Run:
        run = rehearse(*arguments)
        change()
        return run

    return patch("morango_celery.comparison.sides.rehearse", altered)


def test_records_with_the_same_results_have_no_differences() -> None:
    fill_store(50)
    before = dump()
    report = compare(Request(PROFILE))
    assert (report.differences, dict(report.documented)) == (0, {}), report.examples
    assert report.records == 50
    assert sum(model.morango.saved for model in report.models) == 50
    assert all(model.morango == model.ours for model in report.models)
    assert dump() == before
    assert not Unit.objects.exists()


def test_planted_differences_are_found_and_named() -> None:
    units = [store_row("unit") for _ in range(4)]
    bad = store_row("lesson", unit_id="ab" * 16)
    renamed, lost, dirty, deleted = (unit.id for unit in units)
    made = "cd" * 16

    def alter() -> None:
        Unit.objects.filter(pk=renamed).update(name="x", update_dirty_bit_to=False)
        Unit.objects.filter(pk=lost)._raw_delete("default")
        Unit.objects.bulk_create([Unit(id=made, name="more", school_id=SCHOOL_ID)])
        Store.objects.filter(pk=bad.pk).update(deserialization_error="other")
        Store.objects.filter(pk=dirty).update(dirty_bit=True)
        DeletedModels.objects.create(id=deleted, profile=PROFILE)

    before = dump()
    with planted(alter):
        report = compare(Request(PROFILE))
    found = {(each.table, each.row, each.kind, *each.columns) for each in report.examples}
    assert found == {
        ("school_unit", renamed, "columns", "name"),
        ("school_unit", lost, "missing"),
        ("school_unit", made, "additional"),
        ("morango_store", bad.id, "columns", "deserialization_error"),
        ("morango_store", dirty, "columns", "dirty_bit"),
        ("morango_deletedmodels", deleted, "additional"),
    }
    assert report.differences == len(found)
    assert dump() == before


@pytest.mark.needs_postgresql
def test_frozen_comparison_is_ended_by_the_server() -> None:
    """Its locks keep syncs waiting."""
    found: dict[str, str] = {}

    def look(*arguments: Any) -> None:
        with connection.cursor() as cursor:
            for name in TIMEOUTS:
                cursor.execute(f"SHOW {name}")
                found[name] = cursor.fetchone()[0]

    with patch("morango_celery.comparison.sides.morangos_stage", look):
        compare(Request(PROFILE, seconds=90))
    assert found == {**dict.fromkeys(TIMEOUTS, "90s"), "tcp_user_timeout": "90000"}


def test_time_that_ends_in_the_second_look_leaves_differences_unexplained() -> None:
    unit = store_row("unit")
    time = Mock(monotonic=Mock(return_value=0.0))

    def too_late(*arguments: Any) -> Any:
        time.monotonic.return_value = 100.0
        return Unit.objects.exists()

    with (
        planted(lambda: Unit.objects.filter(pk=unit.pk).update(name="x")),
        patch("morango_celery.comparison.compare.time", time),
        patch("morango_celery.comparison.compare.equal_after_retries", too_late),
    ):
        assert compare(Request(PROFILE, seconds=90)).differences == 1


def test_deletion_of_a_row_that_neither_side_wrote_is_found() -> None:
    store_row("unit")
    kept = Unit.objects.create(id="ef" * 16, name="kept", school_id=SCHOOL_ID)
    with planted(lambda: Unit.objects.filter(pk=kept.pk)._raw_delete("default")):
        report = compare(Request(PROFILE))
    assert [(each.row, each.kind) for each in report.examples] == [(kept.pk, "missing")]


def test_clean_records_are_replayed_with_all_that_they_refer_to() -> None:
    fill_store(200)
    compare_none = compare(Request(PROFILE, Filter("12" * 16)))
    assert compare_none.records == 0
    Store.objects.update(dirty_bit=False)
    report = compare(Request(PROFILE, replay=True, records=20))
    assert report.differences == 0
    assert 20 <= report.records < 200
    assert sum(model.ours.saved for model in report.models) == report.records
    assert not Store.objects.filter(dirty_bit=True).exists()
    assert not Lesson.objects.exists()


def test_columns_of_a_later_morango_are_compared() -> None:
    with further_columns():
        unit = store_row("unit", columns={"further_rank": 3, "further_mark": "synced"})
        assert compare(Request(PROFILE)).differences == 0

        with planted(lambda: Store.objects.filter(pk=unit.pk).update(further_mark="other")):
            (found,) = compare(Request(PROFILE)).examples

        assert (found.table, found.row, found.columns) == ("morango_store", unit.id, [MARK])
