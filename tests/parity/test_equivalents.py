"""Declared equivalents of models' own code: the results are Morango's, and the code runs where it must."""

from __future__ import annotations

from collections.abc import Callable
from functools import wraps
from typing import Any

import pytest
from django.conf import settings
from django.db import connection
from django.test.utils import CaptureQueriesContext, override_settings
from morango.models import Store

from morango_celery import deserialize_from_store
from morango_celery.deserialization import equivalent, rows
from morango_celery.deserialization.equivalent import mismatch
from morango_celery.deserialization.rows import row_plan
from morango_celery.equivalents import (
    Between,
    Computed,
    Equivalent,
    RowExists,
    Rule,
    SameAs,
    TargetIn,
    declare,
    declared,
)
from tests.model_zoo import declared as zoo
from tests.model_zoo.models import PROFILE, Album, Person, Track
from tests.model_zoo.rows import build_zoo_row
from tests.parity.harness import assert_same
from tests.support.comparison import (
    BATCH_SIZES,
    Database,
    difference,
    existing,
    rolled_back,
    run,
    save_all,
)

OWNER, OTHER = "aa" * 16, "bb" * 16
ALBUM = build_zoo_row("album")
STORED_ALBUM = build_zoo_row("album", dirty=False)


@pytest.fixture
def saved_by_code(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Titles of the tracks that their model's own code has seen, Morango's side included."""
    assert row_plan(Track) is not None
    seen: list[str] = []
    require = Track.require

    def spying(self: Any) -> None:
        seen.append(self.title)
        require(self)

    monkeypatch.setattr(Track, "require", spying)
    return seen


def switched_off() -> Any:
    return override_settings(MORANGO_CELERY={**settings.MORANGO_CELERY, "USE_EQUIVALENTS": False})


def same_as_by_code(tracks: list[Store], **arguments: Any) -> Database:
    """Return the database that we leave behind, and require it to be that of models' own code."""
    result = run(deserialize_from_store, tracks, **arguments)
    with switched_off():
        by_code = run(deserialize_from_store, tracks, **arguments)
    assert result == by_code, difference(by_code, result)
    return result


def ours(seen: list[str], title: str) -> int:
    """Return how often our side has called a track's own code, of its runs with each batch size."""
    return seen.count(title) - 1


def test_record_that_keeps_the_rules_is_saved_without_its_code(saved_by_code: list[str]) -> None:
    tracks = [
        build_zoo_row("track", album=ALBUM, title="Arrives with it"),
        build_zoo_row("track", album=STORED_ALBUM, title="Was There", slug="was-there", number=1),
        build_zoo_row("track", album=STORED_ALBUM, title="Zero", score=0),
    ]
    result = assert_same([ALBUM, STORED_ALBUM, *tracks], app=[existing(STORED_ALBUM)])
    assert {row["slug"] for row in result.app["track"]} == {"arrives-with-it", "was-there", "zero"}
    assert len(saved_by_code) == len(tracks)  # Morango's side alone


@pytest.mark.parametrize(
    ("fields", "error"),
    [
        ({"owner_id": OTHER}, "The track's owner isn't that of its album."),
        ({"score": 11.0}, "The score is out of range."),
        ({"score": -0.5}, "The score is out of range."),
        ({"score": "high"}, "value must be a float"),
        ({"score": None}, "This field cannot be null."),
        ({"owner_id": ""}, "A track needs an owner."),
        ({"title": "t" * 21}, "at most 20 characters"),
    ],
)
def test_record_that_breaks_a_rule_has_the_error_of_its_own_code(fields: dict[str, Any], error: str) -> None:
    track = build_zoo_row("track", **{"album": STORED_ALBUM, **fields})
    good = build_zoo_row("track", album=STORED_ALBUM)
    result = assert_same([STORED_ALBUM, track, good], app=[existing(STORED_ALBUM)])
    assert result.ids("track") == {good.id}
    assert error in (result.errors[track.id][0] or "")


def test_number_beyond_the_column_fails_as_by_its_own_code() -> None:
    track = build_zoo_row("track", album=ALBUM, number=2**70)
    assert same_as_by_code([ALBUM, track]).errors.keys() == {track.id}


def test_computed_value_may_be_as_long_as_the_column() -> None:
    track = build_zoo_row("track", album=ALBUM, title="ß" * 10)
    assert assert_same([track, ALBUM]).app["track"][0]["slug"] == "ss" * 10


def test_computed_value_that_the_column_refuses_fails_as_by_its_own_code() -> None:
    same_as_by_code([build_zoo_row("track", album=ALBUM, title="ß" * 20), ALBUM])


def test_record_without_the_target_of_a_rule_is_left_to_its_code(saved_by_code: list[str]) -> None:
    track = build_zoo_row("track", title="alone")
    assert assert_same([track]).ids("track") == {track.id}
    assert ours(saved_by_code, "alone") == len(BATCH_SIZES)


def test_rule_sees_the_target_as_this_sync_changes_it() -> None:
    album = build_zoo_row("album", owner_id=OTHER)
    right = build_zoo_row("track", album=album, owner_id=OTHER)
    wrong = build_zoo_row("track", album=album, owner_id=OWNER)
    result = assert_same([album, right, wrong], app=[existing(album, owner_id=OWNER)])
    assert result.ids("track") == {right.id}


def test_rule_sees_a_target_with_a_local_edit_as_it_stays() -> None:
    album = build_zoo_row("album", owner_id=OTHER)
    tracks = [build_zoo_row("track", album=album, owner_id=owner) for owner in (OWNER, OTHER)]
    app = [existing(album, owner_id=OWNER, _morango_dirty_bit=True)]
    result = same_as_by_code([album, *tracks], app=app)
    assert result.ids("track") == {tracks[0].id}


def test_record_fails_with_its_target() -> None:
    album = build_zoo_row("album", owner_id="no id")
    track = build_zoo_row("track", album=album)
    missing = build_zoo_row("track", album_id="cc" * 16)
    result = same_as_by_code([album, track, missing])
    assert result.errors.keys() == {album.id, track.id, missing.id}


def test_target_with_a_value_that_has_no_hash_fails_its_records_alone() -> None:
    album = build_zoo_row("album", owner_id=["no id"])
    track, good = build_zoo_row("track", album=album), build_zoo_row("track", album=STORED_ALBUM)
    result = same_as_by_code([album, STORED_ALBUM, track, good], app=[existing(STORED_ALBUM)])
    assert result.errors.keys() == {album.id, track.id}


def test_rule_holds_for_a_record_that_another_batch_claims_for_its_cycle() -> None:
    choir, voice = build_zoo_row("choir"), build_zoo_row("voice", owner_id=OTHER)
    rightful = build_zoo_row("voice", choir=choir)
    voice = build_zoo_row("voice", id=voice.id, choir=choir, owner_id=OTHER)
    choir = build_zoo_row("choir", id=choir.id, soloist=voice)
    result = same_as_by_code([choir, voice, rightful], batch_sizes=[1])
    assert result.errors.keys() == {choir.id, voice.id, rightful.id}


def test_unique_value_that_changes_hands_is_written() -> None:
    first, second = (build_zoo_row("track", album=ALBUM, number=number) for number in (2, 1))
    app = [existing(first, number=1), existing(second, number=3)]
    assert_same([ALBUM, first, second], app=[existing(ALBUM), *app])


def test_unique_value_of_another_row_is_refused() -> None:
    there = build_zoo_row("track", album=ALBUM, number=1, dirty=False)
    arriving, good = (build_zoo_row("track", album=ALBUM, number=number) for number in (1, 2))
    app = [existing(ALBUM), existing(there)]
    result = same_as_by_code([there, arriving, good], app=app)
    assert result.ids("track") == {there.id, good.id}
    assert result.errors.keys() == {arriving.id}


def test_code_runs_where_equivalents_are_switched_off(saved_by_code: list[str]) -> None:
    track = build_zoo_row("track", album=ALBUM, title="by code")
    with switched_off():
        assert row_plan(Track) is None
        assert_same([ALBUM, track])
    assert ours(saved_by_code, "by code") == len(BATCH_SIZES)


def another(self: Any, *args: Any, **kwargs: Any) -> None:
    """Stand for the code of another version."""
    type(self)._base_manager.filter(pk=self.pk)


@pytest.mark.parametrize("name", [*zoo.OVERRIDES, "require", "slug_of"])
def test_code_of_another_version_runs_itself(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    assert mismatch.__wrapped__(Track) is None  # type: ignore[attr-defined]  # by functools.wraps
    monkeypatch.setattr(zoo if name == "slug_of" else Track, name, another)
    assert "its code is another version" in str(mismatch.__wrapped__(Track))  # type: ignore[attr-defined]  # as above
    monkeypatch.setattr(equivalent, "mismatch", mismatch.__wrapped__)  # type: ignore[attr-defined]  # as above
    assert rows._made(Track).plan is None


def wrapped(function: Callable[..., Any]) -> Callable[..., Any]:
    @wraps(function)
    def wrapper(*args: Any, **kwargs: Any) -> Any:
        return function(*args, **kwargs)

    return wrapper


def test_decorated_code_is_another_version(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Track, "require", wrapped(Track.require))
    assert "another version" in str(mismatch.__wrapped__(Track))  # type: ignore[attr-defined]  # by functools.wraps


@pytest.mark.parametrize("name", ["deserialize", "_save_table", "deferred_clean_fields", "__init__"])
def test_further_override_is_not_stood_for(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Track, name, another)
    found = mismatch.__wrapped__(Track)  # type: ignore[attr-defined]  # by functools.wraps
    assert str(found) == f"it overrides {name} too, beside the code that its equivalent stands for"


@pytest.mark.parametrize(
    ("rule", "problem"),
    [
        (SameAs("owner_id", "disk"), "model_zoo.Track has no foreign key 'disk'"),
        (SameAs("title", "album"), "model_zoo.Album has no column title"),
        (Between("points", 0, 1), "model_zoo.Track has no column points"),
        (Between("score", 1, 0), "1 is above 0"),
        (Computed("slug", ("name",), str), "model_zoo.Track has no column name"),
        (TargetIn("disk", "name", ("A",)), "model_zoo.Track has no foreign key 'disk'"),
        (TargetIn("album", "title", ("A",)), "model_zoo.Album has no column title"),
        (TargetIn("album", "owner_id", ("A",)), "owner_id of model_zoo.Album is no plain text"),
        (RowExists(()), "it names no column"),
        (RowExists((("disk_id", "album_id"),)), "model_zoo.Track has no column disk_id"),
        (RowExists((("title", "album_id"),)), "title of model_zoo.Track is no id of Morango's"),
        (RowExists((("album_id", "title"),)), "title of model_zoo.Track is no id of Morango's"),
        (RowExists((("album_id", "album.name"),)), "name of model_zoo.Album is no id of Morango's"),
        (RowExists((("album_id", "disk.id"),)), "model_zoo.Track has no foreign key 'disk'"),
        (
            RowExists((("album_id", "album_id"),), when=TargetIn("album", "kind", ("A",))),
            "model_zoo.Album has no column kind",
        ),
    ],
)
def test_rule_that_cannot_be_applied_is_named(
    rule: Rule, problem: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    was = declared(Track)
    assert was is not None
    declare(Track, Equivalent(was.overrides, was.calls, was.sha256, (rule,)))
    try:
        found = mismatch.__wrapped__(Track)  # type: ignore[attr-defined]  # by functools.wraps
    finally:
        declare(Track, was)
    assert str(found) == f"its equivalent has a rule that can't be applied: {problem}"


def test_code_that_is_not_there_is_named() -> None:
    was = declared(Track)
    assert was is not None
    declare(Track, Equivalent(was.overrides, ("no_such_method",), was.sha256, was.rules))
    try:
        found = mismatch.__wrapped__(Track)  # type: ignore[attr-defined]  # by functools.wraps
    finally:
        declare(Track, was)
    assert str(found) == "Track has no method 'no_such_method' of its own"


def test_model_without_an_equivalent_says_its_overrides() -> None:
    assert str(mismatch(Person)) == "it overrides clean_fields, deserialize, and no equivalent is declared"


@pytest.mark.django_db
def test_number_of_statements_does_not_grow_with_the_records() -> None:
    def statements(number: int) -> int:
        tracks = [build_zoo_row("track", album=STORED_ALBUM) for _ in range(number)]
        with rolled_back():
            save_all([STORED_ALBUM, *tracks], [existing(STORED_ALBUM)])
            with CaptureQueriesContext(connection) as queries:
                deserialize_from_store(PROFILE)
            assert Track.objects.count() == number
            assert Album.objects.count() == 1
        return len(queries)

    statements(1)  # what is asked once in a process
    assert statements(50) == statements(3)
