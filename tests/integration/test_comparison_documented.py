"""Comparison with Morango: documented deviations are recognized, by what they leave behind."""

from __future__ import annotations

import re
import time
from collections.abc import Iterator
from itertools import count
from pathlib import Path
from typing import Any
from unittest.mock import patch

import pytest
from django.db import OperationalError, connection
from morango.models import Store

from morango_celery.comparison import Request, compare
from morango_celery.comparison import documented as rules
from morango_celery.comparison.compare import _Comparison
from morango_celery.errors import ComparisonError, MismatchedIdError, PoisonRecordError, UnknownModelError
from morango_celery.upstream import exception_path
from tests.support.dump import dump
from tests.support.factories import SCHOOL_ID, store_row
from tests.support.processes import ROOT
from tests.support.sessions import other_session
from worker.school.models import PROFILE, Learner, Unit

pytestmark = pytest.mark.django_db(transaction=True)


def documented() -> dict[str, int]:
    """Compare all records; return the number of rows by the deviation that explains them."""
    report = compare(Request(PROFILE))
    assert report.differences == 0, report.examples
    return dict(report.documented)


def test_deleted_record_stays_dirty_with_morango_alone() -> None:
    store_row("lesson", unit=store_row("unit"), deleted=True)
    assert documented() == {"deleted-records-stay-dirty": 1}


def test_record_of_an_unknown_model_is_in_error_with_us_alone() -> None:
    row = store_row("unit")
    Store.objects.filter(pk=row.pk).update(model_name="unheard_of")
    assert documented() == {"unregistered-models": 1}
    assert Store.objects.get().deserialization_exception is None


def test_record_with_another_id_overwrites_a_row_with_morango_alone() -> None:
    row = store_row("lesson", unit=store_row("unit"))
    text = row.serialized.replace(row.id, "ab" * 16)
    Store.objects.filter(pk=row.pk).update(serialized=text)
    report = compare(Request(PROFILE))
    assert report.documented["other-ids"] >= 1
    # The row that it would overwrite is none of this record's, and is shown to the operator
    assert {each.row for each in report.examples if each.documented is None} <= {"ab" * 16}


def test_target_that_the_store_lacks_counts_with_us_alone() -> None:
    unit = Unit(id="ef" * 16, name="known", school_id=SCHOOL_ID)
    unit.save(update_dirty_bit_to=False)
    lesson = store_row("lesson", unit_id=unit.id)
    report = compare(Request(PROFILE))
    assert report.differences == 0, report.examples
    assert {each.row for each in report.examples} == {lesson.id}
    assert set(report.documented) == {"targets-outside-the-store"}


def test_records_that_abort_morango_are_set_aside() -> None:
    good, bad = store_row("unit"), store_row("unit")
    text = bad.serialized.replace(f'"school_id": "{SCHOOL_ID}"', '"school_id": {"a": 1}')
    Store.objects.filter(pk=bad.pk).update(serialized=text)
    before = dump()
    report = compare(Request(PROFILE))
    assert (report.differences, list(report.set_aside), report.records) == (0, [bad.id], 1)
    assert report.documented == {"one-bad-record": 1}
    [unit] = report.models
    assert (unit.morango.saved, unit.ours.saved) == (1, 1), good
    assert dump() == before


def test_records_that_fail_morango_at_its_commit_are_set_aside() -> None:
    unit = store_row("unit")
    learner = store_row("learner", unit=unit, school_id="ab" * 16)  # it can't be saved
    attempt = store_row("attempt", learner=learner)
    report = compare(Request(PROFILE))
    assert set(report.set_aside) == {learner.id, attempt.id}
    assert (report.records, report.differences) == (1, 0)


def test_quarantined_records_are_given_to_neither_side() -> None:
    row = store_row("unit")
    quarantined = {
        "deserialization_error": "x",
        "deserialization_exception": exception_path(PoisonRecordError),
    }
    Store.objects.filter(pk=row.pk).update(**quarantined)
    report = compare(Request(PROFILE))
    assert (report.records, report.quarantined) == (0, 1)


def learner(number: int, username: str, unit: Unit) -> Learner:
    found = Learner(id=f"{number:032x}", username=username, full_name="Ada", unit=unit, school_id=SCHOOL_ID)
    found.save(update_dirty_bit_to=False)
    return found


def test_record_that_failed_for_its_order_alone_is_explained() -> None:
    """One learner takes over the username that another one gives up, and comes first with Morango."""
    unit = Unit(id="ef" * 16, name="known", school_id=SCHOOL_ID)
    unit.save(update_dirty_bit_to=False)
    store_row("unit", id=unit.id)
    for number, old, new in ((1, "bob", "ada"), (2, "ada", "new")):
        known = learner(number, old, unit)
        store_row("learner", id=known.id, unit_id=unit.id, username=new)
    assert set(documented()) <= {"row-order"}


def test_values_in_which_morango_differs_from_itself_are_left_to_chance() -> None:
    numbers = count(1900)

    def drawn(self: Learner, *args: Any, **kwargs: Any) -> None:
        self.birth_year = next(numbers)
        super(Learner, self).save(*args, **kwargs)

    store_row("learner", unit=store_row("unit"))
    with patch.object(Learner, "save", drawn):
        assert documented() == {rules.CHANCE: 1}


def anchors() -> Iterator[str]:
    page = Path(ROOT, "docs/fidelity.md").read_text(encoding="utf-8")
    yield from re.findall(r'<a id="([a-z0-9-]+)">', page)


def test_each_documented_deviation_has_a_rule_or_a_reason_for_none() -> None:
    source = Path(rules.__file__).read_text(encoding="utf-8").partition("INVISIBLE: ")
    named = set(re.findall(r'"([a-z]+(?:-[a-z]+)+)"', source[0] + source[2].partition("\n}\n")[2]))
    known = set(anchors())
    assert known - named - set(rules.INVISIBLE) == set()
    assert set(rules.INVISIBLE) <= known
    assert named - known <= {rules.CHANCE}


@pytest.mark.parametrize("error", [MismatchedIdError, UnknownModelError, PoisonRecordError])
def test_errors_that_only_we_have_name_their_deviation(error: type[Exception]) -> None:
    assert rules.named(None, rules.Fate(False, True, exception_path(error), "")) in set(anchors())


def test_time_limit_gives_up_and_rolls_back() -> None:
    store_row("unit")
    before = dump()
    with pytest.raises(ComparisonError, match=r"took longer than 0\.001 s"):
        compare(Request(PROFILE, seconds=0.001))
    assert dump() == before


@pytest.mark.needs_postgresql
def test_time_limit_that_the_database_enforces_is_the_same_error() -> None:
    store_row("unit")
    before = dump()
    with other_session() as writer:
        writer("BEGIN")
        writer("LOCK TABLE morango_store IN ACCESS EXCLUSIVE MODE")
        with pytest.raises(ComparisonError, match=r"took longer than 0\.3 s") as ended:
            compare(Request(PROFILE, seconds=0.3))
        assert isinstance(ended.value.__cause__, OperationalError)
        writer("ROLLBACK")
    assert dump() == before


@pytest.mark.needs_postgresql
def test_session_that_the_database_ends_at_the_time_limit_is_the_same_error(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    # Given a process that stands still for longer than the limit, and doesn't see its session end
    def stand_still(*arguments: Any) -> None:
        time.sleep(0.8)
        raise OperationalError("server closed the connection unexpectedly")

    monkeypatch.setattr(_Comparison, "report", stand_still)
    with pytest.raises(ComparisonError, match=r"took longer than 0\.2 s"):
        compare(Request(PROFILE, seconds=0.2))


@pytest.mark.needs_postgresql
@pytest.mark.parametrize(
    ("name", "remedy"),
    [("lock_timeout", "longer than lock_timeout"), ("statement_timeout", "longer than statement_timeout")],
)
def test_time_limit_of_the_database_itself_is_named(name: str, remedy: str) -> None:
    store_row("unit")
    with other_session() as writer, connection.cursor() as cursor:
        writer("BEGIN")
        writer("LOCK TABLE school_unit IN ACCESS EXCLUSIVE MODE")
        cursor.execute(f"SET {name} = '100ms'")
        try:
            with pytest.raises(ComparisonError, match=remedy):
                compare(Request(PROFILE))
        finally:
            cursor.execute(f"RESET {name}")
