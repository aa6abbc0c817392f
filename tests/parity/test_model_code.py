"""Models with code of their own: it runs, with Morango's arguments, and its errors are the record's."""

from __future__ import annotations

from collections import Counter
from contextlib import suppress
from typing import Any

import pytest
from django.db import DatabaseError, connection
from morango.models import SyncableModel
from morango.models.certificates import Filter

from morango_celery import deserialize_from_store
from tests.model_zoo.models import PROFILE, Card, Person, Region
from tests.model_zoo.rows import build_zoo_row
from tests.parity.harness import assert_same, assert_same_but_clean, both
from tests.support.comparison import BATCH_SIZES, existing, run
from tests.support.factories import SCHOOL_ID, build_store_row
from worker.school.models import Learner

OTHER = "ab" * 16
HOME = build_zoo_row("region", dirty=False)


def test_save_changes_the_row() -> None:
    unit = build_store_row("unit")
    learner = build_store_row("learner", unit=unit, full_name="ÁDA  Example", search_name="")
    assert assert_same([unit, learner]).app["learner"][0]["search_name"] == "áda example"


def test_save_refuses_the_record() -> None:
    unit = build_store_row("unit")
    learner = build_store_row("learner", unit=unit, school_id=OTHER)
    good = build_store_row("learner", unit=unit)
    result = assert_same([unit, learner, good])
    assert result.errors[learner.id][1] == "worker.school.models.WrongSchoolError"
    assert result.ids("learner") == {good.id}


def test_save_sees_the_synced_version_of_what_the_record_refers_to() -> None:
    unit = build_store_row("unit", school_id=OTHER)
    learner = build_store_row("learner", unit=unit, school_id=OTHER)
    result = assert_same([learner, unit], app=[existing(unit, school_id=SCHOOL_ID)])
    assert result.ids("learner") == {learner.id}


def test_own_code_sees_the_synced_version_of_what_was_a_parent_before(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The region is looked up for the town below it, then written, then read by the person."""
    seen = []
    original = Person.clean_fields

    def clean_fields(self: Any, exclude: Any = None, sync_filter: Any = None) -> None:
        seen.append(self.home.name)
        original(self, exclude=exclude, sync_filter=sync_filter)

    monkeypatch.setattr(Person, "clean_fields", clean_fields)
    region = build_zoo_row("region", name="new")
    town = build_zoo_row("town", parent=region)
    person = build_zoo_row("person", home=region)
    assert_same([region, town, person], app=[existing(region, name="old")])
    assert seen == ["new"] * (1 + len(BATCH_SIZES))


def test_save_reads_a_sibling_that_comes_first() -> None:
    steps = [build_zoo_row("step", number=number) for number in range(1, 5)]
    assert len(assert_same(steps).app["step"]) == 4


def test_save_without_its_sibling_is_the_records_error() -> None:
    first, third = build_zoo_row("step", number=1), build_zoo_row("step", number=3)
    result = assert_same([first, third])
    assert result.errors == {
        third.id: ("Step matching query does not exist.", "tests.model_zoo.models.DoesNotExist")
    }


def test_save_finds_a_sibling_that_comes_later_where_morango_does_not() -> None:
    steps = [build_zoo_row("step", number=number) for number in (3, 2, 1)]
    theirs, ours = both(steps)
    assert len(theirs.errors) == 2
    assert (ours.errors, len(ours.app["step"])) == ({}, 3)


def test_siblings_in_a_batch_are_found_in_the_first_pass(batch_size: int) -> None:
    for number in (3, 2, 1):
        build_zoo_row("step", number=number).save(force_insert=True)
    done = deserialize_from_store(PROFILE)
    assert (done.saved, done.failed) == (3, 0)
    assert (done.pass_number == 1) is (batch_size > 1)


def test_deserialize_accepts_an_older_form() -> None:
    person = build_zoo_row("person", home=HOME, full_name="Grace Example")
    assert assert_same([HOME, person], app=[existing(HOME)]).app["person"][0]["name"] == "Grace Example"


def test_clean_fields_changes_a_field() -> None:
    person = build_zoo_row("person", home=HOME, name="Ada Example", initials="XX")
    assert assert_same([HOME, person], app=[existing(HOME)]).app["person"][0]["initials"] == "AE"


def test_clean_fields_refuses_the_record() -> None:
    good = build_zoo_row("person", home=HOME)
    person = build_zoo_row("person", home=HOME, name="Nobody")
    card = build_zoo_row("card", person=person)
    result = assert_same([HOME, person, good, card], app=[existing(HOME)])
    assert result.errors[person.id] == (
        "['Nobody is no name.']",
        "django.core.exceptions.ValidationError",
    )
    assert result.errors[card.id][0] == f"['person with id {person.id} failed to deserialize']"
    assert result.ids("person") == {good.id}


@pytest.mark.parametrize("fields", [{"name": None}, {"name": "x" * 51}, {"full_name": ""}])
def test_nonsense_in_clean_fields_costs_only_its_record(fields: dict[str, Any]) -> None:
    person = build_zoo_row("person", home=HOME, **fields)
    good = build_zoo_row("person", home=HOME)
    theirs, ours = both([HOME, person, good], app=[existing(HOME)])
    if theirs.aborted is None:
        assert ours == theirs
    assert (list(ours.errors), ours.ids("person")) == ([person.id], {good.id})


def test_hidden_row_is_overwritten() -> None:
    letter = build_zoo_row("letter", text="new", closed=True)
    result = assert_same([letter], app=[existing(letter, text="old")])
    assert [(row["text"], row["closed"]) for row in result.app["letter"]] == [("new", True)]


def test_hidden_row_is_shown_again() -> None:
    letter = build_zoo_row("letter", closed=False)
    result = assert_same([letter], app=[existing(letter, closed=True)])
    assert result.app["letter"][0]["closed"] is False


def test_hidden_row_is_deleted() -> None:
    letter = build_zoo_row("letter", closed=True, deleted=True)
    result = assert_same_but_clean([letter], deleted=[letter], app=[existing(letter)])
    assert result.app["letter"] == []


def test_hidden_row_is_saved_anew() -> None:
    letter = build_zoo_row("letter", closed=True)
    assert assert_same([letter]).ids("letter") == {letter.id}


def test_filter_reaches_the_models_own_code(monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[tuple[str, str]] = []
    original = Learner.deserialize.__func__, Learner.clean_fields

    def deserialize(cls: Any, data: Any, sync_filter: Any = None) -> Any:
        seen.append(("deserialize", str(sync_filter)))
        return original[0](cls, data, sync_filter=sync_filter)

    def clean_fields(self: Any, exclude: Any = None, sync_filter: Any = None) -> None:
        seen.append(("clean_fields", str(sync_filter)))
        original[1](self, exclude=exclude, sync_filter=sync_filter)

    monkeypatch.setattr(Learner, "deserialize", classmethod(deserialize))
    monkeypatch.setattr(Learner, "clean_fields", clean_fields)
    unit = build_store_row("unit")
    assert_same([unit, build_store_row("learner", unit=unit)], filter=Filter(SCHOOL_ID))
    assert seen == [("deserialize", SCHOOL_ID), ("clean_fields", SCHOOL_ID)] * (1 + len(BATCH_SIZES))


def refused_by_the_database(name: str) -> None:
    """Have a model's code send a query that the database can't answer."""
    if name == "Refused":
        with connection.cursor() as cursor:
            cursor.execute("SELECT no_such_function()")


def query_in_clean_fields(monkeypatch: pytest.MonkeyPatch, model: type[SyncableModel]) -> None:
    original = model.clean_fields

    def clean_fields(self: Any, exclude: Any = None, sync_filter: Any = None) -> None:
        refused_by_the_database(self.name)
        original(self, exclude=exclude, sync_filter=sync_filter)

    monkeypatch.setattr(model, "clean_fields", clean_fields)


def query_in_deserialize(monkeypatch: pytest.MonkeyPatch, model: type[SyncableModel]) -> None:
    original = model.deserialize.__func__

    def deserialize(cls: Any, data: Any, sync_filter: Any = None) -> Any:
        refused_by_the_database(data["name"])
        return original(cls, data, sync_filter=sync_filter)

    monkeypatch.setattr(model, "deserialize", classmethod(deserialize))


@pytest.mark.parametrize("query_in", [query_in_clean_fields, query_in_deserialize])
@pytest.mark.parametrize("model", [Person, Region], ids=["plain", "tree"])
def test_query_that_the_database_refuses_is_the_records_error(
    monkeypatch: pytest.MonkeyPatch, trees_alone: None, query_in: Any, model: type[SyncableModel]
) -> None:
    # Given a model with code that runs a query, which fails for one record
    query_in(monkeypatch, model)
    fields = {"home": HOME} if model is Person else {}
    name = str(model.morango_model_name)
    refused = build_zoo_row(name, name="Refused", **fields)
    good = [build_zoo_row(name, name=f"Good {number}", **fields) for number in range(4)]
    rows = [HOME, *good[:2], refused, *good[2:]]

    theirs, ours = both(rows, app=[existing(HOME)])

    # Then that one is in error, and the others are saved, where Morango's run fails
    ((store_id, (text, exception)),) = ours.errors.items()
    assert (ours.aborted, store_id) == (None, refused.id)
    assert "no_such_function" in str(text)
    assert str(exception).startswith("django.db.utils.")
    assert {row.id for row in good} <= {row["id"] for rows in ours.app.values() for row in rows}
    assert {row.id for row in rows if ours.dirty[row.id]} == {refused.id}
    assert theirs.aborted is not None


@pytest.mark.needs_postgresql
def test_query_whose_failure_the_model_ignores_spoils_only_its_record(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    original = Person.clean_fields

    def clean_fields(self: Any, exclude: Any = None, sync_filter: Any = None) -> None:
        with suppress(DatabaseError):
            refused_by_the_database(self.name)
        original(self, exclude=exclude, sync_filter=sync_filter)

    monkeypatch.setattr(Person, "clean_fields", clean_fields)
    refused = build_zoo_row("person", home=HOME, name="Refused")
    good = build_zoo_row("person", home=HOME)

    ours = both([HOME, refused, good], app=[existing(HOME)])[1]

    assert (ours.aborted, ours.ids("person")) == (None, {good.id})
    assert ours.errors[refused.id][1] == "django.db.utils.InternalError"


def test_query_refused_when_the_record_stands_alone_is_its_error(monkeypatch: pytest.MonkeyPatch) -> None:
    # Given two cards that can't both be written, and code that meets trouble each second time
    calls: Counter[str] = Counter()
    original = Card.clean_fields

    def clean_fields(self: Any, exclude: Any = None, sync_filter: Any = None) -> None:
        calls[self.id] += 1
        refused_by_the_database("Refused" if calls[self.id] % 2 == 0 else "")
        original(self, exclude=exclude, sync_filter=sync_filter)

    monkeypatch.setattr(Card, "clean_fields", clean_fields)
    person = build_zoo_row("person", home=HOME)
    cards = [build_zoo_row("card", person=person) for _ in range(2)]

    ours = run(deserialize_from_store, [HOME, person, *cards], app=[existing(HOME)])

    assert (ours.aborted, ours.ids("person")) == (None, {person.id})
    assert {row.id for row in cards} - ours.ids("card") == set(ours.errors)
    assert ours.errors


@pytest.mark.needs_postgresql
def test_errors_of_the_database_itself_are_no_records_error(monkeypatch: pytest.MonkeyPatch) -> None:
    def clean_fields(self: Any, exclude: Any = None, sync_filter: Any = None) -> None:
        with connection.cursor() as cursor:
            cursor.execute("SELECT pg_cancel_backend(pg_backend_pid()), pg_sleep(10)")

    monkeypatch.setattr(Person, "clean_fields", clean_fields)
    person = build_zoo_row("person", home=HOME)

    ours = run(deserialize_from_store, [HOME, person], app=[existing(HOME)])

    assert ours.aborted == "django.db.utils.OperationalError"
    assert ours.errors == {}
