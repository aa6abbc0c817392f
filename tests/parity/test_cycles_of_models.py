"""Models that refer to each other."""

from __future__ import annotations

import pytest

from morango_celery import deserialize_from_store
from tests.model_zoo.models import PROFILE
from tests.model_zoo.rows import build_zoo_row
from tests.parity.harness import assert_same, assert_same_but_clean, both
from tests.support.comparison import existing


def test_record_with_a_clean_target_in_a_cycle_is_saved() -> None:
    club = build_zoo_row("club", dirty=False)
    member = build_zoo_row("member", club=club)
    assert assert_same([club, member], app=[existing(club)]).ids("member") == {member.id}


def test_clubs_without_a_president_are_saved() -> None:
    clubs = [build_zoo_row("club") for _ in range(4)]
    members = [build_zoo_row("member", club=club) for club in clubs]
    assert len(assert_same([*members, *clubs]).app["member"]) == 4


def test_reference_to_another_cycle_is_saved() -> None:
    first = build_zoo_row("club", dirty=False)
    president = build_zoo_row("member", club=first, dirty=False)
    second = build_zoo_row("club", president=president)
    result = assert_same([second, first, president], app=[existing(first), existing(president)])
    assert {row["president_id"] for row in result.app["club"]} == {None, president.id}


def test_cycle_of_two_records_is_saved_in_either_order() -> None:
    club = build_zoo_row("club")
    member = build_zoo_row("member", club=club)
    club = build_zoo_row("club", id=club.id, source_id=club.source_id, president=member)
    for rows in ([club, member], [member, club]):
        result = assert_same(rows)
        assert (result.ids("club"), result.ids("member"), result.errors) == ({club.id}, {member.id}, {})


def test_several_cycles_are_saved() -> None:
    clubs, members = [], []
    for _ in range(4):
        club = build_zoo_row("club")
        member = build_zoo_row("member", club=club)
        clubs.append(build_zoo_row("club", id=club.id, source_id=club.source_id, president=member))
        members.append(member)
    result = assert_same([*clubs, *members])
    assert (len(result.app["club"]), len(result.app["member"]), result.errors) == (4, 4, {})


def test_cycle_of_four_records_is_saved() -> None:
    first = build_zoo_row("club")
    member = build_zoo_row("member", club=first)
    second = build_zoo_row("club", president=member)
    other = build_zoo_row("member", club=second)
    first = build_zoo_row("club", id=first.id, source_id=first.source_id, president=other)
    result = assert_same([first, other, second, member])
    assert (result.errors, len(result.app["club"]), len(result.app["member"])) == ({}, 2, 2)


def test_existing_cycle_is_overwritten() -> None:
    club = build_zoo_row("club")
    old, new = (build_zoo_row("member", club=club, number=number) for number in (1, 2))
    club = build_zoo_row("club", id=club.id, source_id=club.source_id, president=new)
    app = [existing(club, president_id=old.id), existing(old)]
    assert [row["president_id"] for row in assert_same([club, old, new], app=app).app["club"]] == [new.id]


def test_cycle_is_saved_beside_a_refused_record() -> None:
    other = build_zoo_row("club", dirty=False)
    taken = build_zoo_row("member", club=other, dirty=False)
    club = build_zoo_row("club")
    member = build_zoo_row("member", club=club)
    club = build_zoo_row("club", id=club.id, source_id=club.source_id, president=member)
    refused = build_zoo_row("member", club=other)
    rows = [other, taken, club, member, refused]
    result = assert_same(rows, app=[existing(other), existing(taken)])
    assert list(result.errors) == [refused.id]
    assert result.ids("member") == {taken.id, member.id}


def test_failure_of_a_cycles_first_half_fails_the_second() -> None:
    """Clubs come before members here as there: the member hears of the club's failure."""
    club = build_zoo_row("club")
    member = build_zoo_row("member", club=club)
    club = build_zoo_row("club", id=club.id, source_id=club.source_id, president=member, name="")
    result = assert_same([club, member])
    assert set(result.errors) == {club.id, member.id}


def test_failure_of_a_cycles_second_half_fails_the_first_where_morango_aborts() -> None:
    club = build_zoo_row("club")
    member = build_zoo_row("member", club=club, number="one")
    club = build_zoo_row("club", id=club.id, source_id=club.source_id, president=member)
    good = build_zoo_row("club")
    theirs, ours = both([club, member, good])
    assert theirs.aborted == "django.db.utils.IntegrityError"
    assert set(ours.errors) == {club.id, member.id}
    assert ours.ids("club") == {good.id}


def test_each_record_is_counted_once_whatever_batch_it_is_in() -> None:
    for number in (1, "one"):
        club = build_zoo_row("club")
        member = build_zoo_row("member", club=club, number=number)
        club = build_zoo_row("club", id=club.id, source_id=club.source_id, president=member)
        for row in (club, member):
            row.save(force_insert=True)
    run = deserialize_from_store(PROFILE)
    assert (run.records, run.saved, run.failed) == (4, 2, 2)


@pytest.mark.parametrize("hard", [False, True])
def test_both_halves_of_a_cycle_are_deleted(hard: bool) -> None:
    club = build_zoo_row("club")
    member = build_zoo_row("member", club=club)
    club = build_zoo_row("club", id=club.id, source_id=club.source_id, president=member)
    app = [existing(club), existing(member)]
    for row in (club, member):
        row.deleted, row.hard_deleted = True, hard
    result = assert_same_but_clean([club, member], deleted=[club, member], app=app)
    assert (result.app["club"], result.app["member"]) == ([], [])


def test_president_is_deleted_and_the_club_stays() -> None:
    club = build_zoo_row("club", name="new")
    member = build_zoo_row("member", club=club, deleted=True)
    app = [existing(club, president_id=member.id, name="old"), existing(member)]
    result = assert_same_but_clean([club, member], deleted=[member], app=app)
    assert [(row["name"], row["president_id"]) for row in result.app["club"]] == [("new", None)]


def test_club_is_deleted_and_its_members_with_it() -> None:
    club = build_zoo_row("club", deleted=True)
    synced = build_zoo_row("member", club=club, number=1)
    clean = build_zoo_row("member", club=club, number=2, dirty=False)
    app = [existing(club, president_id=synced.id), existing(synced), existing(clean)]
    result = assert_same_but_clean([club, synced, clean], deleted=[club], propagated=[synced], app=app)
    assert (result.app["club"], result.app["member"], result.deleted) == ([], [], {synced.id})


def test_record_with_a_deleted_target_in_its_cycle_is_propagated() -> None:
    club = build_zoo_row("club")
    member = build_zoo_row("member", club=club, deleted=True)
    club = build_zoo_row("club", id=club.id, source_id=club.source_id, president=member)
    result = assert_same_but_clean([club, member], deleted=[member], propagated=[club])
    assert result.deleted == {club.id}


def test_target_of_an_unknown_model_fails_its_cycle_alone() -> None:
    # Given a club with a president that waits too, and is of a kind that no app knows
    spaceship = build_zoo_row("spaceship")
    club = build_zoo_row("club", president_id=spaceship.id)
    good = build_zoo_row("club")

    ours = both([club, spaceship, good])[1]

    assert (ours.aborted, ours.ids("club")) == (None, {good.id})
    assert {store_id for store_id, dirty in ours.dirty.items() if dirty} == {club.id, spaceship.id}
    assert ours.errors[spaceship.id][1] == "morango_celery.errors.UnknownModelError"
    assert spaceship.id in str(ours.errors[club.id][0])
