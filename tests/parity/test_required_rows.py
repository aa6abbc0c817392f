"""Rules of equivalents about rows that have to be there, here or in the same sync: the results are those of
the model's own code, and it runs where it must."""

from __future__ import annotations

from typing import Any

import pytest
from django.db import connection
from django.test.utils import CaptureQueriesContext
from hypothesis import HealthCheck, Phase, given, seed, settings
from hypothesis import strategies as st
from morango.models import Store

from morango_celery import deserialize_from_store
from morango_celery.deserialization.rows import row_plan
from tests.model_zoo.models import PROFILE, Player
from tests.model_zoo.rows import build_zoo_row
from tests.parity.forests import EXAMPLES, SEED
from tests.parity.harness import assert_same, both
from tests.parity.players import (
    ADA,
    AUDIENCE,
    BOB,
    OTHER_WHOLE,
    PART,
    SECTION,
    STORED,
    WHOLE,
    player,
    same_as_by_code,
    there,
)
from tests.support.comparison import Database, existing, rolled_back, run, save_all

ONE_BATCH = (1_000, 100)
"""Sizes of a batch that is written at once, and of one that is written group by group."""
NOT_IN_WHOLE = "['Plays in a section, and not in the whole.']"


@pytest.fixture
def asked_by_code(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Ids of the players that their model's own code has looked at."""
    assert row_plan(Player) is not None
    seen: list[str] = []
    require_place = Player.require_place

    def spying(self: Any) -> None:
        seen.append(self.id)
        require_place(self)

    monkeypatch.setattr(Player, "require_place", spying)
    return seen


def same_as_by_morango(players: list[Store], *, app: list[Any] | None = None) -> Database:
    return assert_same([*STORED, *players], app=[*there(), *(app or [])])


def test_row_of_the_same_batch_is_enough(asked_by_code: list[str]) -> None:
    players = [player(WHOLE), player(SECTION), player(WHOLE, BOB), player(SECTION, BOB)]
    result = run(deserialize_from_store, [*STORED, *players], app=there(), batch_sizes=ONE_BATCH)
    assert result.ids("player") == {row.id for row in players}
    assert asked_by_code == []
    assert same_as_by_morango(players).ids("player") == {row.id for row in players}


def test_row_that_comes_later_is_enough_where_morango_does_not_find_it(asked_by_code: list[str]) -> None:
    players = [player(PART), player(SECTION), player(WHOLE)]
    theirs, ours = both([*STORED, *players], app=there())
    assert len(theirs.errors) == 2
    assert (ours.errors, ours.ids("player")) == ({}, {row.id for row in players})
    asked_by_code.clear()
    run(deserialize_from_store, [*STORED, *players], app=there(), batch_sizes=ONE_BATCH)
    assert asked_by_code == []


def test_row_of_an_earlier_sync_is_enough(asked_by_code: list[str]) -> None:
    whole, section = player(WHOLE, dirty=False), player(SECTION)
    app = [*there(), existing(whole)]
    result = run(deserialize_from_store, [*STORED, whole, section], app=app)
    assert result.ids("player") == {whole.id, section.id}
    assert asked_by_code == []
    same_as_by_morango([whole, section], app=[existing(whole)])


def test_rows_that_arrive_unchanged_are_enough(asked_by_code: list[str]) -> None:
    whole, section = player(WHOLE, part="new"), player(SECTION, part="new")
    app = [existing(whole, part="old"), existing(section, part="old")]
    result = run(deserialize_from_store, [*STORED, section, whole], app=[*there(), *app])
    assert {row["part"] for row in result.app["player"]} == {"new"}
    assert asked_by_code == []
    same_as_by_morango([section, whole], app=app)


def test_record_without_the_row_has_the_error_of_its_own_code() -> None:
    alone, other = player(SECTION), player(WHOLE, BOB)
    result = same_as_by_morango([alone, other])
    assert result.errors.keys() == {alone.id}
    assert result.errors[alone.id][0] == NOT_IN_WHOLE
    same_as_by_code([alone, other])


def test_target_with_another_value_leaves_the_record_to_its_own_code() -> None:
    listener, good = player(AUDIENCE), player(WHOLE)
    result = same_as_by_morango([listener, good])
    assert result.ids("player") == {good.id}
    assert result.errors[listener.id][0] == "['Nobody plays in an audience.']"


def test_section_of_nothing_is_left_to_its_own_code() -> None:
    nowhere = build_zoo_row("ensemble", kind="section")
    lost = player(nowhere)
    result = same_as_by_morango([nowhere, player(WHOLE), lost])
    assert result.errors[lost.id][0] == NOT_IN_WHOLE


def test_rule_sees_the_target_as_this_sync_changes_it() -> None:
    """A whole ensemble becomes a section, and a section a whole one, in the sync that has the players."""
    now_section = build_zoo_row("ensemble", kind="section", whole_id=OTHER_WHOLE.id)
    now_whole = build_zoo_row("ensemble", kind="whole")
    app = [existing(now_section, kind="whole", whole_id=None), existing(now_whole, kind="audience")]
    players = [player(now_section), player(now_whole), player(OTHER_WHOLE, BOB), player(now_section, BOB)]
    result = same_as_by_morango([now_section, now_whole, *players], app=app)
    assert result.errors.keys() == {players[0].id}


@pytest.mark.parametrize(
    "defect",
    [{"part": "longer than ten"}, {"seat": "first"}, {"seat": 2**70}, {"ensemble_id": "cc" * 16}],
    ids=["too long", "no number", "too large for the column", "missing target"],
)
@pytest.mark.parametrize("comes_first", [True, False])
def test_record_fails_with_the_required_one(defect: dict[str, Any], comes_first: bool) -> None:
    whole = build_zoo_row("player", **{"ensemble": WHOLE, "person_id": ADA, **defect})
    section, good, also_good = player(SECTION), player(WHOLE, BOB), player(SECTION, BOB)
    players = [whole, section] if comes_first else [section, whole]
    result = same_as_by_code([*players, good, also_good])
    assert result.ids("player") == {good.id, also_good.id}
    assert result.errors[section.id][0] == NOT_IN_WHOLE


@pytest.mark.parametrize("comes_first", [True, False])
def test_record_fails_with_a_required_one_that_claims_a_unique_value(comes_first: bool) -> None:
    seated = player(OTHER_WHOLE, BOB, seat=1, dirty=False)
    whole, section, good = player(WHOLE, seat=1), player(SECTION), player(WHOLE, BOB, seat=2)
    players = [whole, section] if comes_first else [section, whole]
    result = same_as_by_code([seated, *players, good], app=[existing(seated)])
    assert result.ids("player") == {seated.id, good.id}
    assert result.errors[section.id][0] == NOT_IN_WHOLE


def test_record_that_claims_a_unique_value_itself_costs_no_other() -> None:
    seated = player(OTHER_WHOLE, BOB, seat=1, dirty=False)
    whole, section = player(WHOLE), player(SECTION, seat=1)
    result = same_as_by_code([seated, whole, section], app=[existing(seated)])
    assert result.ids("player") == {seated.id, whole.id}
    assert result.errors.keys() == {section.id}


def test_required_row_that_is_deleted_in_the_same_sync_is_none() -> None:
    whole, section = player(WHOLE, deleted=True), player(SECTION)
    result = same_as_by_code([whole, section], app=[existing(whole)])
    assert result.ids("player") == set()
    assert result.errors[section.id][0] == NOT_IN_WHOLE


def test_required_row_that_becomes_another_in_the_same_sync_is_left_to_the_code(
    asked_by_code: list[str],
) -> None:
    whole, section = player(OTHER_WHOLE), player(SECTION)
    app = [*there(), existing(whole, ensemble_id=WHOLE.id)]
    for size in ONE_BATCH:  # whether it is still there depends on the order of the records
        run(deserialize_from_store, [*STORED, whole, section], app=app, batch_sizes=[size])
        assert set(asked_by_code) == {section.id}
        asked_by_code.clear()


def test_required_row_with_a_local_edit_is_as_the_edit_left_it() -> None:
    whole, section = player(WHOLE), player(SECTION)
    away = [existing(whole, ensemble_id=OTHER_WHOLE.id, _morango_dirty_bit=True)]
    result = same_as_by_code([whole, section], app=away)
    assert result.errors.keys() == {section.id}
    edited = [existing(whole, part="edited", _morango_dirty_bit=True)]
    assert same_as_by_code([whole, section], app=edited).ids("player") == {whole.id, section.id}


def test_records_that_require_each_other_are_both_refused() -> None:
    one = build_zoo_row("ensemble", kind="section")
    two = build_zoo_row("ensemble", kind="section", whole_id=one.id)
    one = build_zoo_row("ensemble", id=one.id, kind="section", whole_id=two.id)
    result = same_as_by_morango([one, two, player(one), player(two), player(WHOLE)])
    assert len(result.errors) == 2
    assert len(result.ids("player")) == 1


def test_record_that_requires_its_own_row_is_refused_until_that_is_there() -> None:
    own = build_zoo_row("ensemble", kind="section")
    own = build_zoo_row("ensemble", id=own.id, kind="section", whole_id=own.id)
    itself = player(own)
    assert same_as_by_morango([own, itself]).errors.keys() == {itself.id}
    assert same_as_by_morango([own, itself], app=[existing(itself)]).errors == {}


def test_target_that_is_saved_as_another_value_is_left_to_the_code(asked_by_code: list[str]) -> None:
    odd = build_zoo_row("ensemble", kind=["whole"])  # a list, and so without a hash; saved as its text
    of_odd, good = player(odd), player(WHOLE)
    result = same_as_by_code([odd, of_odd, good])
    assert result.ids("player") == {of_odd.id, good.id}
    assert of_odd.id in asked_by_code


@pytest.mark.django_db
def test_number_of_statements_does_not_grow_with_the_records() -> None:
    def statements(number: int) -> int:
        people = [f"{person:032x}" for person in range(number)]
        players = [player(each, person) for each in (SECTION, WHOLE) for person in people]
        with rolled_back():
            save_all([*STORED, *players], there())
            with CaptureQueriesContext(connection) as queries:
                deserialize_from_store(PROFILE)
            assert Player.objects.count() == len(players)
        return len(queries)

    statements(1)  # what is asked once in a process
    assert statements(50) == statements(3)


STATES = ("new", "new", "new", "there", "moved", "edited", "clean", "deleted")
DEFECTS: tuple[dict[str, Any], ...] = ({}, {}, {}, {"part": "longer than ten"}, {"seat": 1}, {"seat": "x"})
KINDS = st.tuples(
    st.sampled_from(STORED), st.sampled_from([ADA, BOB]), st.sampled_from(STATES), st.sampled_from(DEFECTS)
)


@settings(
    deadline=None,
    derandomize=not SEED,
    max_examples=max(10, EXAMPLES // 2),
    suppress_health_check=list(HealthCheck),
    phases=set(Phase) - {Phase.explain},
)
@seed(SEED)
@given(kinds=st.lists(KINDS, min_size=1, max_size=7), size=st.sampled_from([1000, 100, 3, 2, 1]))
def test_result_is_that_of_the_code_for_any_records(kinds: list[Any], size: int) -> None:
    seated = player(AUDIENCE, seat=1, dirty=False)
    players, app = [seated], [existing(seated)]
    for ensemble, person_id, state, defect in kinds:
        sound = defect if state in ("new", "there", "moved", "edited") else {}
        row = player(ensemble, person_id, dirty=state != "clean", deleted=state == "deleted", **sound)
        players.append(row)
        before: dict[str, Any] = {"ensemble_id": ensemble.id, "part": "", "seat": None}
        if state == "moved":  # from where nobody requires it: else the order of the records decides
            before["ensemble_id"] = OTHER_WHOLE.id if ensemble is not OTHER_WHOLE else AUDIENCE.id
        if state == "edited":
            before["ensemble_id"] = WHOLE.id if ensemble is not WHOLE else OTHER_WHOLE.id
        if state != "new":
            there_before = existing(player(ensemble, person_id, id=row.id))
            for name, value in {**before, "_morango_dirty_bit": state == "edited"}.items():
                setattr(there_before, name, value)
            app.append(there_before)
    same_as_by_code(players, app, batch_sizes=[size])
