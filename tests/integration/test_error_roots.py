"""Roots of errors: groups of records in error name the record because of which theirs fail."""

from __future__ import annotations

import html
from io import StringIO
from itertools import pairwise

import pytest
from django.core.management import call_command
from django.db import connection
from django.test import Client
from django.test.utils import CaptureQueriesContext
from morango.models import Store
from morango.models.certificates import Filter

from morango_celery.admin import error_groups
from morango_celery.errors import QueryTimeoutError
from morango_celery.models import RecordInError
from morango_celery.runs.producer import create_run
from morango_celery.runs.report import failures
from morango_celery.runs.roots import MAX_STEPS, READ_RECORDS, Root, roots_by_cause
from tests.support.factories import store_row
from tests.support.run_helpers import MISSING, carry_out, new_run, unit
from worker.school.models import PROFILE

pytestmark = pytest.mark.django_db

GROUPS = "/admin/morango_celery/recordinerror/"


def broken_unit() -> Store:
    return store_row("unit", name=None)


def of_model(model_name: str) -> list[Root]:
    """Return the roots of all groups of a model."""
    found = roots_by_cause(RecordInError.objects.all())
    return [root for (_, model, _), roots in found.items() if model == model_name for root in roots]


def texts(model_name: str) -> list[tuple[str, int]]:
    return [(root.text, root.count) for root in of_model(model_name)]


def named_by(text: str, exception: str = "a.B") -> list[tuple[str, str]]:
    """Return the roots of one record in error with this text."""
    Store.objects.all().delete()
    store_row("lesson", columns={"deserialization_error": text, "deserialization_exception": exception})
    return [(root.model_name, root.store_id) for root in of_model("lesson")]


def test_record_that_others_refer_to_and_that_fails_is_their_root() -> None:
    target = broken_unit()
    for _ in range(3):
        store_row("lesson", unit=target)
    carry_out()

    assert texts("lesson") == [(f"unit {target.id}, which is in error itself (ValidationError)", 3)]
    assert texts("unit") == []


def test_record_that_is_missing_is_the_root_of_those_that_refer_to_it() -> None:
    store_row("lesson", unit_id=MISSING)
    carry_out()

    assert texts("lesson") == [(f"unit {MISSING}, which the Store doesn't have", 1)]


def test_root_of_a_tree_is_found_through_all_that_fail_for_one_another() -> None:
    top = broken_unit()
    child = unit(top)
    grandchild = unit(child)
    store_row("lesson", unit=grandchild)
    carry_out()

    text = f"unit {top.id}, which is in error itself (ValidationError)"
    assert texts("lesson") == [(text, 1)]
    assert texts("unit") == [(text, 2)]


def test_parent_that_is_missing_is_a_root() -> None:
    parent = unit(dirty=False)
    child = unit(parent)
    Store.objects.filter(pk=parent.pk).delete()
    carry_out()

    ((_, _, exception),) = roots_by_cause(RecordInError.objects.all())
    assert exception.endswith("MorangoMissingParent")
    assert texts("unit") == [(f"unit {parent.id}, which the Store doesn't have", 1)]
    assert child.id in set(RecordInError.objects.values_list("pk", flat=True))


@pytest.mark.parametrize(
    ("columns", "state"),
    [
        ({"dirty_bit": False}, "which is deserialized by now"),
        ({"deserialization_error": "", "deserialization_exception": None}, "which still waits"),
    ],
)
def test_root_that_is_no_longer_in_error_is_told_as_such(columns: dict[str, object], state: str) -> None:
    target = broken_unit()
    store_row("lesson", unit=target)
    carry_out()
    Store.objects.filter(pk=target.pk).update(**columns)

    assert texts("lesson") == [(f"unit {target.id}, {state}", 1)]


def test_most_frequent_roots_come_first() -> None:
    for number, target in enumerate((broken_unit() for _ in range(5)), start=1):
        for _ in range(number):
            store_row("lesson", unit=target)
    carry_out()

    assert [root.count for root in of_model("lesson")] == [5, 4, 3]


def test_records_that_fail_for_one_another_in_a_circle_have_an_end() -> None:
    one, other = (store_row("unit") for _ in range(2))
    for row, target in ((one, other), (other, one)):
        text = f"['unit with id {target.id} failed to deserialize']"
        Store.objects.filter(pk=row.pk).update(deserialization_error=text, deserialization_exception="a.B")

    assert len(of_model("unit")) == 2


def test_chain_that_is_too_long_is_followed_so_far() -> None:
    rows = [store_row("unit") for _ in range(MAX_STEPS + 5)]
    for row, target in pairwise(rows):
        text = f"['unit with id {target.id} failed to deserialize']"
        Store.objects.filter(pk=row.pk).update(deserialization_error=text, deserialization_exception="a.B")

    assert not any(root.is_missing for root in of_model("unit"))


def test_texts_of_databases_name_records_too() -> None:
    text = 'Key (unit_id)=({}) is not present in table "school_unit".\n'.format("cd" * 16)
    assert named_by(f"insert or update on table violates\nDETAIL:  {text}") == [("school_unit", "cd" * 16)]
    text = f"school_lesson.unit_id refers to {MISSING!r}, which school_unit doesn't have."
    assert named_by(text) == [("school_unit", MISSING)]
    text = "Lesson.room_id references non-existent room instance with id '7'"
    assert named_by(text) == [("room", "7")]


def test_text_that_names_no_record_has_no_root() -> None:
    for text in ("no name", "it failed to deserialize", "Parent is dirty", "", "x refers to y"):
        assert named_by(text) == []
    assert named_by("no parent", "morango.errors.MorangoDirtyParent") == []


def test_cost_is_the_same_for_any_number_of_groups_and_records() -> None:
    costs = []
    for number in (1, 30):
        for _ in range(number):
            target = broken_unit()
            store_row("lesson", unit=target)
            store_row("lesson", unit_id=MISSING)
        carry_out()
        with CaptureQueriesContext(connection) as queries:
            roots_by_cause(RecordInError.objects.all())
        costs.append(len(queries))
    assert costs == [4, 4]  # two of them of the savepoint


def test_large_groups_are_read_in_part() -> None:
    target = broken_unit()
    for _ in range(READ_RECORDS + 10):
        store_row("lesson", unit=target)
    carry_out()

    (group,) = (group for group in failures(new_run()) if group.model_name == "lesson")
    (root,) = group.roots
    assert root.count == READ_RECORDS
    assert root.share_of(group.count) == f"at least {READ_RECORDS} of {READ_RECORDS + 10}"


def test_command_names_the_roots() -> None:
    target = broken_unit()
    store_row("lesson", unit=target)
    store_row("lesson", unit=target)
    run, _ = carry_out()
    out = StringIO()

    with pytest.raises(SystemExit):  # every record has failed
        call_command("deserialize_status", str(run.pk), stdout=out)

    text = f"because of unit {target.id}, which is in error itself (ValidationError): 2 of 2\n"
    assert f"\n      {text}" in out.getvalue()


def test_admins_groups_and_runs_name_the_roots_and_lead_to_them(operator: Client) -> None:
    target = broken_unit()
    store_row("lesson", unit=target)
    store_row("lesson", unit_id=MISSING)
    run, _ = carry_out()

    for url in (GROUPS, f"/admin/morango_celery/run/{run.pk}/change/"):
        page = html.unescape(operator.get(url).content.decode())
        text = f"unit {target.id}, which is in error itself (ValidationError)"
        assert f'because of <a href="{GROUPS}{target.id}/change/">{text}</a>: 1 of 1' in page
        assert f"because of unit {MISSING}, which the Store doesn't have: 1 of 1" in page


def test_root_outside_of_a_runs_filter_is_found() -> None:
    target = broken_unit()
    lesson = store_row("lesson", unit=target)
    carry_out()

    (group,) = failures(create_run(PROFILE, Filter(lesson.partition)))
    assert group.model_name == "lesson"
    assert [root.store_id for root in group.roots] == [target.id]


def test_groups_are_shown_without_roots_that_take_too_long(
    operator: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    def take_too_long(records: object) -> None:
        raise QueryTimeoutError

    store_row("lesson", unit_id=MISSING)
    carry_out()
    monkeypatch.setattr(error_groups, "roots_by_cause", take_too_long)

    page = operator.get(GROUPS).content.decode()

    assert "IntegrityError" in page
    assert "which records others fail because of" in page
