"""Unique values: a row that has one keeps it, and a value that the same sync frees may be taken."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest
from morango.models import Store
from morango.sync.operations import _deserialize_from_store as morangos

from morango_celery import deserialize_from_store
from tests.model_zoo.rows import build_zoo_row
from tests.parity.harness import assert_same, assert_same_but_clean, both
from tests.support.comparison import BATCH_SIZES, Database, existing, run, save_all
from tests.support.factories import SCHOOL_ID, build_store_row
from worker.school.models import PROFILE, Learner

TAKEN = "django.db.utils.IntegrityError"
UNIT = build_store_row("unit", dirty=False)


def learner(username: str, **arguments: object) -> Store:
    """Return a learner. All are in one partition, where both engines keep to the order of arrival."""
    where = f"{SCHOOL_ID}:learners"
    return build_store_row("learner", unit=UNIT, username=username, partition=where, **arguments)  # type: ignore[arg-type]


def names(result: Database) -> dict[str, str]:
    return {row["id"]: row["username"] for row in result.app["learner"]}


def assert_one_wins(rows: list[Store], *claimants: Store, app: list[Any]) -> None:
    """Assert that all but one of the claimants are in error. Chance decides which one wins, all else is
    Morango's."""
    ours = [run(deserialize_from_store, rows, app=app, batch_sizes=[size]) for size in BATCH_SIZES]
    outcomes = []
    for database in (run(morangos, rows, app=app), *ours):
        assert database.aborted is None
        saved = set().union(*(database.ids(table) for table in database.app))
        losers = [database.errors.pop(row.id) for row in claimants if row.id not in saved]
        assert len(losers) == len(claimants) - 1
        assert {path for _, path in losers} == {TAKEN}
        outcomes.append((losers, *without(database, claimants)))
    assert outcomes == outcomes[:1] * len(outcomes)


def without(database: Database, rows: Sequence[Store]) -> tuple[Any, ...]:
    ids = {row.id for row in rows}
    app = {table: [row for row in found if row["id"] not in ids] for table, found in database.app.items()}
    dirty = sorted(database.dirty[row.id] for row in rows)
    others = {store_id: values for store_id, values in database.serialized.items() if store_id not in ids}
    return app, dirty, others, database.errors, database.deleted, database.counted


def test_one_of_two_records_with_one_value_is_saved() -> None:
    first, second = learner("ada"), learner("ada")
    good = [learner(f"good-{number}") for number in range(5)]
    rows = [UNIT, first, *good[:2], second, *good[2:]]
    assert_one_wins(rows, first, second, app=[existing(UNIT)])


def test_one_of_three_records_with_one_value_is_saved() -> None:
    rows = [learner("ada") for _ in range(3)]
    assert_one_wins([UNIT, *rows], *rows, app=[existing(UNIT)])


def test_existing_row_keeps_its_value() -> None:
    there, new = learner("ada", dirty=False), learner("ada")
    result = assert_same([UNIT, there, new], app=[existing(UNIT), existing(there)])
    text, path = result.errors[new.id]
    assert "username" in (text or "")
    assert (path, names(result)) == (TAKEN, {there.id: "ada"})


def test_its_own_code_refuses_a_record_before_the_database_does() -> None:
    there, elsewhere = learner("ada", dirty=False), build_store_row("unit", school_id="ab" * 16, dirty=False)
    new = build_store_row("learner", unit=elsewhere, school_id=SCHOOL_ID, username="ada")
    app = [existing(UNIT), existing(elsewhere), existing(there)]
    result = assert_same([UNIT, elsewhere, there, new], app=app)
    assert (result.errors[new.id][1] or "").endswith("WrongSchoolError")


def test_unserialized_row_keeps_its_value() -> None:
    local, new = learner("ada"), learner("ada")
    app = [existing(UNIT), existing(local, _morango_dirty_bit=True)]
    result = assert_same([UNIT, new], app=app)
    assert (result.errors[new.id][1], names(result)) == (TAKEN, {local.id: "ada"})


def test_record_changes_to_a_value_that_is_taken_and_keeps_its_row() -> None:
    there, changed = learner("ada", dirty=False), learner("ada")
    app = [existing(UNIT), existing(there), existing(changed, username="bob")]
    result = assert_same([UNIT, there, changed], app=app)
    assert (result.errors[changed.id][1], names(result)[changed.id]) == (TAKEN, "bob")


def test_records_that_refer_to_a_loser_are_in_error_where_morango_fails() -> None:
    there, new = learner("ada", dirty=False), learner("ada")
    attempt = build_store_row("attempt", learner=new)
    theirs, ours = both([UNIT, there, new, attempt], app=[existing(UNIT), existing(there)])
    assert theirs.aborted == TAKEN
    assert ours.errors[attempt.id][0] == f"['learner with id {new.id} failed to deserialize']"


@pytest.mark.parametrize("deleted_first", [True, False])
def test_deleted_record_frees_its_value(deleted_first: bool) -> None:
    gone, new = learner("ada", deleted=True), learner("ada")
    rows = [gone, new] if deleted_first else [new, gone]
    result = assert_same_but_clean([UNIT, *rows], deleted=[gone], app=[existing(UNIT), existing(gone)])
    assert names(result) == {new.id: "ada"}


def test_batch_deletes_before_it_saves(batch_size: int) -> None:
    gone, new = learner("ada", deleted=True), learner("ada")
    save_all([UNIT, new, gone], app=[existing(UNIT), existing(gone)])
    run = deserialize_from_store(PROFILE)
    assert (run.saved, run.deleted, run.failed) == (1, 1, 0)
    assert (run.pass_number == 1) is (batch_size > 1)


def test_cascade_frees_a_value() -> None:
    closed = build_store_row("unit", deleted=True)
    gone = build_store_row("learner", unit=closed, username="ada", dirty=False)
    new = learner("ada")
    app = [existing(UNIT), existing(closed), existing(gone)]
    assert names(assert_same([new, UNIT, closed, gone], app=app)) == {new.id: "ada"}


@pytest.mark.parametrize("swapped", [False, True])
def test_two_records_exchange_their_values_in_vain(swapped: bool) -> None:
    """Neither can go first; as with Morango, both stay as they were."""
    one, other = learner("bob"), learner("ada")
    app = [existing(UNIT), existing(one, username="ada"), existing(other, username="bob")]
    result = assert_same([UNIT, *([other, one] if swapped else [one, other])], app=app)
    assert {path for _, path in result.errors.values()} == {TAKEN}
    assert names(result) == {one.id: "ada", other.id: "bob"}


def test_value_is_handed_on_along_a_chain() -> None:
    rows = [learner(f"name-{number + 1}") for number in range(5)]
    app = [existing(row, username=f"name-{number}") for number, row in enumerate(rows)]
    result = assert_same([UNIT, *reversed(rows)], app=[existing(UNIT), *app])
    assert result.errors == {}
    assert names(result)[rows[0].id] == "name-1"


def test_chain_in_another_order_fails_with_morango_only() -> None:
    rows = [learner(f"name-{number + 1}") for number in range(5)]
    app = [existing(row, username=f"name-{number}") for number, row in enumerate(rows)]
    theirs, ours = both([UNIT, *rows], app=[existing(UNIT), *app])
    assert len(theirs.errors) == 4
    assert (ours.errors, sorted(names(ours).values())) == ({}, [f"name-{n}" for n in range(1, 6)])


def test_record_that_is_tried_again_is_saved_as_it_came(monkeypatch: pytest.MonkeyPatch) -> None:
    # Given a save() that shows how often it was called for an instance
    save = Learner.save

    def counting(app_model: Learner, *args: Any, **kwargs: Any) -> None:
        app_model.full_name += "!"
        save(app_model, *args, **kwargs)

    monkeypatch.setattr(Learner, "save", counting)

    # When only the last of some records finds its value free
    rows = [learner(f"name-{number + 1}", full_name="Ada") for number in range(3)]
    app = [existing(row, username=f"name-{number}") for number, row in enumerate(rows)]
    _, ours = both([UNIT, *rows], app=[existing(UNIT), *app])

    # Then each is saved, and as if it were the first time
    assert ours.errors == {}
    assert [row["full_name"] for row in ours.app["learner"]] == ["Ada!"] * 3


def test_one_of_two_records_unique_together_is_saved() -> None:
    club, other = build_zoo_row("club"), build_zoo_row("club")
    first = build_zoo_row("member", club=club, number=7)
    elsewhere = build_zoo_row("member", club=other, number=7)
    second = build_zoo_row("member", club=club, number=7)
    assert_one_wins([club, other, first, elsewhere, second], first, second, app=[])


def test_existing_row_keeps_its_values_unique_together() -> None:
    club = build_zoo_row("club")
    there = build_zoo_row("member", club=club, dirty=False)
    new = build_zoo_row("member", club=club)
    result = assert_same([new, club, there], app=[existing(club), existing(there)])
    assert (result.errors[new.id][1], result.ids("member")) == (TAKEN, {there.id})


def test_deleted_target_frees_values_unique_together() -> None:
    old, new = build_zoo_row("club", deleted=True), build_zoo_row("club")
    member = build_zoo_row("member", club=new)
    joined = build_zoo_row("member", club=new, number=2)
    app = [existing(old), existing(new), existing(member, club_id=old.id)]
    theirs, ours = both([joined, member, old, new], app=app)
    assert ours.app == theirs.app
    assert ours.ids("member") == {member.id, joined.id}


def test_one_of_two_records_with_one_to_one_target_is_saved() -> None:
    home = build_zoo_row("region")
    person = build_zoo_row("person", home=home)
    first, second = (build_zoo_row("card", person=person) for _ in range(2))
    assert_one_wins([home, person, first, second], first, second, app=[])


def test_deleted_record_frees_a_one_to_one_target() -> None:
    home = build_zoo_row("region")
    person = build_zoo_row("person", home=home)
    old, new = (
        build_zoo_row("card", person=person, deleted=True),
        build_zoo_row("card", person=person),
    )
    app = [existing(row) for row in (home, person, old)]
    result = assert_same_but_clean([new, old, home, person], deleted=[old], app=app)
    assert result.ids("card") == {new.id}


def test_two_records_exchange_their_one_to_one_targets_in_vain() -> None:
    home = build_zoo_row("region")
    people = [build_zoo_row("person", home=home) for _ in range(2)]
    cards = [build_zoo_row("card", person=person) for person in people]
    app = [existing(row) for row in (home, *people)]
    app += [existing(cards[0], person_id=people[1].id), existing(cards[1], person_id=people[0].id)]
    result = assert_same([home, *people, *cards], app=app)
    assert set(result.errors) == {card.id for card in cards}


def test_values_school_is_not_looked_at() -> None:
    """The constraint spans schools, and so partitions: records that no sync need bring together."""
    other = "ab" * 16
    unit = build_store_row("unit", dirty=False, school_id=other)
    there = build_store_row("learner", unit=unit, school_id=other, username="ada", dirty=False)
    new = learner("ada", school_id=SCHOOL_ID)
    app = [existing(UNIT), existing(unit), existing(there)]
    assert list(assert_same([UNIT, unit, there, new], app=app).errors) == [new.id]
