"""Conflicts of unique values with other rows, which are known before anything is written."""

from __future__ import annotations

from typing import cast

import pytest

from morango_celery.deserialization.task import DeserializeTask
from morango_celery.deserialization.unique_conflicts import find_conflicting
from tests.model_zoo.models import Member
from tests.model_zoo.rows import build_zoo_row

pytestmark = pytest.mark.django_db


def member(number: object, club: str = "ab" * 16) -> DeserializeTask:
    store = build_zoo_row("member")
    carrier = DeserializeTask(store)
    carrier.set_app_model(Member(id=store.id, club_id=club, number=cast(int, number)))
    return carrier


def test_second_of_two_equal_values_conflicts() -> None:
    first, second, other = member(1), member(1), member(2)
    assert find_conflicting([first, second, other]) == {second}


def test_equal_number_of_another_club_does_not_conflict() -> None:
    assert find_conflicting([member(1), member(1, club="cd" * 16)]) == set()


@pytest.mark.parametrize("number", ["one", [1], None])
def test_value_that_cannot_be_saved_conflicts_with_none(number: object) -> None:
    first, second = member(1), member(1)
    assert find_conflicting([member(number), first, member(number), second]) == {second}


def test_value_that_has_no_form_in_json_ends_the_search(monkeypatch: pytest.MonkeyPatch) -> None:
    number = Member._meta.get_field("number")
    monkeypatch.setattr(number, "get_db_prep_save", lambda value, connection: {value})
    assert find_conflicting([member(1), member(1)]) == set()
