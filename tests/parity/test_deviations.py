"""Morango's mistakes, and our deviations from them. One test a row of docs/fidelity.md."""

from __future__ import annotations

from typing import Any

import pytest
from django.db import connection
from morango.models import Store
from morango.models.certificates import Filter

from morango_celery import deserialize_from_store
from morango_celery.deserialization.quarantine import QUARANTINED
from tests.model_zoo.rows import build_zoo_row
from tests.parity.harness import app_row, both
from tests.support.comparison import existing, run
from tests.support.factories import SCHOOL_ID, build_store_row
from worker.school.models import Learner

OTHER = "ab" * 16
PROTECTED = "django.db.models.deletion.ProtectedError"


def test_deleted_records_become_clean() -> None:
    lesson = build_store_row("lesson", unit_id=OTHER, deleted=True)
    morango, ours = both([lesson])
    assert morango.dirty[lesson.id] is True
    assert ours.dirty[lesson.id] is False
    assert ours.app == morango.app


@pytest.mark.parametrize("hard", [False, True])
def test_records_deleted_with_their_target_become_clean(hard: bool) -> None:
    unit = build_store_row("unit", deleted=True, hard_deleted=hard)
    lesson = build_store_row("lesson", unit=unit)
    morango, ours = both([unit, lesson])
    assert (ours.app, ours.errors) == (morango.app, morango.errors)
    assert ours.deleted == morango.deleted == {lesson.id}
    assert ours.hard_deleted == morango.hard_deleted == ({lesson.id} if hard else set())
    assert morango.dirty[lesson.id] is True
    assert ours.dirty[lesson.id] is False


def test_quarantined_record_is_left_alone() -> None:
    # Given a record that ended its workers, and one that belongs to it
    unit = build_store_row("unit")
    said = {"deserialization_error": "It never ended.", "deserialization_exception": QUARANTINED}
    poison = build_store_row("learner", unit=unit, columns=said)
    attempt = build_store_row("attempt", learner=poison)

    morango, ours = both([unit, poison, attempt])

    assert set(morango.ids("learner")) == {poison.id}
    assert ours.ids("learner") == ours.ids("attempt") == set()
    assert ours.errors[poison.id] == ("It never ended.", QUARANTINED)
    assert f"learner with id {poison.id} failed to deserialize" in str(ours.errors[attempt.id][0])


def test_deletion_propagates_over_any_number_of_levels() -> None:
    unit = build_store_row("unit")
    learner = build_store_row("learner", unit=unit, deleted=True)
    attempt = build_store_row("attempt", learner=learner)
    feedback = build_store_row("feedback", attempt=attempt)
    morango, ours = both([unit, learner, attempt, feedback])
    assert morango.aborted == "django.db.utils.IntegrityError"
    assert ours.aborted is None
    assert ours.deleted == {attempt.id, feedback.id}
    assert ours.ids("unit") == {unit.id}


@pytest.mark.parametrize("model_name", ["unit", "lesson"])
def test_any_error_of_a_record_costs_only_itself(model_name: str) -> None:
    unit = build_store_row("unit")
    target = {"unit": unit} if model_name == "lesson" else {}
    bad, good = build_store_row(model_name, **target), build_store_row(model_name, **target)
    bad.serialized = bad.serialized.replace(f'"school_id": "{SCHOOL_ID}"', '"school_id": {"a": 1}')
    morango, ours = both([unit, bad, good])
    assert morango.aborted is not None
    assert ours.aborted is None
    assert list(ours.errors) == [bad.id]
    assert str(ours.errors[bad.id][0]).startswith("Not readable: school_id = {'a': 1}. ")
    assert good.id in ours.ids(model_name)
    assert ours.dirty == {unit.id: False, bad.id: True, good.id: False}


@pytest.mark.parametrize("serialized", ["null", "5", "[" * 100_000], ids=["null", "number", "deep"])
@pytest.mark.parametrize("model_name", ["unit", "lesson"])
def test_json_that_is_no_object_costs_only_its_record(model_name: str, serialized: str) -> None:
    bad, good = build_store_row(model_name, serialized=serialized), build_store_row("unit")
    morango, ours = both([bad, good])
    assert morango.aborted is not None
    assert (ours.aborted, list(ours.errors), ours.ids("unit")) == (None, [bad.id], {good.id})


@pytest.mark.needs_postgresql
@pytest.mark.parametrize("name", ["surrogate \ud800", "a" * 90 + "\x00"])
def test_text_that_the_database_refuses_costs_only_its_record(name: str) -> None:
    bad = build_store_row("unit", name=name)
    good = build_store_row("unit")
    ours = run(deserialize_from_store, [bad, good])
    assert (ours.aborted, list(ours.errors), ours.ids("unit")) == (None, [bad.id], {good.id})


@pytest.mark.needs_postgresql
def test_number_that_the_database_refuses_costs_only_its_record() -> None:
    unit = build_store_row("unit")
    bad, good = build_store_row("learner", unit=unit), build_store_row("learner", unit=unit)
    bad.serialized = bad.serialized.replace('"birth_year": 2012', '"birth_year": 1e999')
    morango, ours = both([unit, bad, good])
    assert morango.aborted is not None
    assert (ours.aborted, list(ours.errors), ours.ids("learner")) == (None, [bad.id], {good.id})


def test_unsaved_target_fails_its_records_only() -> None:
    unit = build_store_row("unit")
    refused = build_store_row("learner", unit=unit, school_id=OTHER)
    attempt = build_store_row("attempt", learner=refused)
    morango, ours = both([unit, refused, attempt])
    assert morango.aborted == "django.db.utils.IntegrityError"
    assert ours.aborted is None
    assert set(ours.errors) == {refused.id, attempt.id}
    assert ours.errors[attempt.id] == (
        f"['learner with id {refused.id} failed to deserialize']",
        "django.core.exceptions.ValidationError",
    )


@pytest.mark.parametrize("reference", ["nonsense", 7, ["a"], {"a": 1}, ""])
def test_reference_that_is_no_id_costs_only_its_record(reference: object) -> None:
    lesson = build_store_row("lesson", unit_id=reference)
    good = build_store_row("unit")
    morango, ours = both([lesson, good])
    if connection.vendor == "postgresql" or isinstance(reference, list | dict):
        assert morango.aborted is not None
    else:
        assert (morango.aborted, morango.errors) == (None, ours.errors)
    assert (ours.aborted, ours.ids("unit")) == (None, {good.id})
    assert ours.errors == {
        lesson.id: (
            f"Lesson.unit_id references non-existent unit instance with id '{reference}'",
            "django.db.utils.IntegrityError",
        )
    }


def test_unregistered_model_is_an_error_of_its_record() -> None:
    # Two: a run of a single record is one batch, for which no model's records are looked up
    rows = [build_store_row("timetable"), build_store_row("timetable")]
    morango, ours = both(rows)
    assert morango.errors == {}
    for row in rows:
        assert morango.dirty[row.id] is True
        assert ours.dirty[row.id] is True
        text, path = ours.errors[row.id]
        assert "'timetable'" in (text or "")
        assert path == "morango_celery.errors.UnknownModelError"


def test_parent_outside_the_filter_counts_if_it_is_there() -> None:
    parent = build_store_row("unit", dirty=False, partition=f"{OTHER}:units")
    child = build_store_row("unit", parent=parent)
    morango, ours = both([parent, child], app=[app_row(parent)], filter=Filter(SCHOOL_ID))
    assert morango.errors[child.id][1] == "morango.errors.MorangoMissingParent"
    assert ours.errors == {}
    assert child.id in ours.ids("unit")


def test_deleted_record_needs_no_parent() -> None:
    orphan = build_store_row("unit", parent_id=OTHER, deleted=True)
    morango, ours = both([orphan], app=[app_row(orphan)])
    assert morango.ids("unit") == {orphan.id}
    assert morango.errors[orphan.id][1] == "morango.errors.MorangoMissingParent"
    assert ours.ids("unit") == set()
    assert (ours.dirty[orphan.id], ours.errors) == (False, {})


def test_target_in_the_app_table_alone_counts() -> None:
    unit = app_row(build_store_row("unit"))
    lesson = build_store_row("lesson", unit_id=unit.id)
    morango, ours = both([lesson], app=[unit])
    assert morango.errors[lesson.id][1] == "django.db.utils.IntegrityError"
    assert ours.ids("lesson") == {lesson.id}


@pytest.mark.parametrize("giver_first", [True, False])
def test_order_of_records_does_not_matter(giver_first: bool) -> None:
    """One learner takes over the username that another one gives up in the same sync."""
    unit = build_store_row("unit")
    ids = ["0a" * 16, "0b" * 16]  # a batch's records are in the order of their partitions, which name them
    giver_id, taker_id = ids if giver_first else ids[::-1]
    giver = build_store_row("learner", id=giver_id, unit=unit, username="new")
    taker = build_store_row("learner", id=taker_id, unit=unit, username="ada")
    existing = [
        Learner(
            id=row.id,
            school_id=SCHOOL_ID,
            unit_id=unit.id,
            username=username,
            full_name="Ada Example",
            _morango_source_id=row.source_id,
            _morango_partition=row.partition,
            _morango_dirty_bit=False,
        )
        for row, username in [(giver, "ada"), (taker, "bob")]
    ]
    ours = run(deserialize_from_store, [unit, giver, taker], app=[app_row(unit), *existing])
    assert ours.errors == {}
    assert {row["username"] for row in ours.app["learner"]} == {"new", "ada"}


MISMATCH = "morango_celery.errors.MismatchedIdError"


@pytest.mark.parametrize("model_name", ["unit", "learner", "lesson", "attempt", "person", "lorry", "label"])
def test_record_writes_no_row_but_its_own(model_name: str) -> None:
    # Given a row of another facility, and a record with that row's id in its JSON
    build: Any = build_zoo_row if model_name in ("person", "lorry", "label") else build_store_row
    targets = {
        "learner": ["unit"],
        "lesson": ["unit"],
        "attempt": ["unit", "learner"],
        "person": ["region"],
        "label": ["cabinet"],
    }.get(model_name, [])
    stored: dict[str, Store] = {}
    for target in targets:
        stored[target] = build(
            target, dirty=False, **({"unit": stored["unit"]} if target == "learner" else {})
        )
    named: dict[str, Any] = {"home" if name == "region" else name: row for name, row in stored.items()}
    unique = {"lorry": "plate", "label": "number"}.get(model_name, "no key of any")
    victim = build(model_name, partition=f"{OTHER}:elsewhere", dirty=False, **{unique: "1"}, **named)
    forged = build(model_name, **{unique: "1"}, **named)
    forged.serialized = forged.serialized.replace(forged.id, victim.id)
    good = build(model_name, **{unique: "2"}, **named)
    app = [existing(row) for row in (*stored.values(), victim)]

    # When both deserialize it, Morango overwrites the row, and we refuse the record
    theirs, ours = both([*stored.values(), victim, forged, good], app=app)
    assert (theirs.errors, theirs.dirty[forged.id]) == ({}, False)
    (overwritten,) = (row for row in theirs.app[model_name] if row["id"] == victim.id)
    assert overwritten["_morango_partition"] == forged.partition
    (kept,) = (row for row in ours.app[model_name] if row["id"] == victim.id)
    assert kept["_morango_partition"] == victim.partition
    assert ours.ids(model_name) == {victim.id, good.id}
    text, path = ours.errors.pop(forged.id)
    assert path == MISMATCH
    assert f"id = '{victim.id}'" in str(text)
    assert forged.id in str(text)
    assert (ours.errors, ours.aborted, ours.dirty[forged.id]) == ({}, None, True)


def test_local_edit_wins() -> None:
    row = build_store_row("unit", name="synced")
    edited = app_row(row, name="edited here", _morango_dirty_bit=True)
    morango, ours = both([row], app=[edited])
    assert [unit["name"] for unit in morango.app["unit"]] == ["synced"]
    assert [(unit["name"], unit["_morango_dirty_bit"]) for unit in ours.app["unit"]] == [
        ("edited here", True)
    ]
    assert (ours.dirty[row.id], ours.errors) == (True, {})


def test_local_edit_wins_over_a_deletion() -> None:
    row = build_store_row("unit", deleted=True)
    morango, ours = both([row], app=[app_row(row, _morango_dirty_bit=True)])
    assert morango.ids("unit") == set()
    assert ours.ids("unit") == {row.id}
    assert ours.dirty[row.id] is True


def test_protected_row_costs_only_the_record_that_would_delete_it() -> None:
    club = build_zoo_row("club", dirty=False)
    kept = build_zoo_row("member", club=club, number=1, deleted=True)
    gone = build_zoo_row("member", club=club, number=2, deleted=True)
    letter = build_zoo_row("letter", sender=kept, dirty=False)
    app = [existing(row) for row in (club, kept, gone, letter)]
    theirs, ours = both([club, kept, gone, letter], app=app)
    assert theirs.aborted == PROTECTED
    assert ours.errors[kept.id][1] == PROTECTED
    assert (ours.ids("member"), list(ours.errors)) == ({kept.id}, [kept.id])
    assert (ours.dirty[gone.id], ours.dirty[kept.id]) == (False, True)


def test_filter_may_have_more_prefixes_than_sqlite_nests_conditions() -> None:
    units = [build_store_row("unit"), build_store_row("unit", school_id=OTHER)]
    prefixes = [*(f"{number:032}:units" for number in range(1_000)), SCHOOL_ID]
    morango, ours = both(units, filter=Filter("\n".join(prefixes)))
    assert ours.aborted is None
    assert ours.ids("unit") == {units[0].id}
    if connection.vendor == "sqlite":
        assert morango.aborted == "django.db.utils.OperationalError"
    else:
        assert ours == morango


def test_null_reference_is_judged_by_its_own_field() -> None:
    # Given a null where it is allowed, and one where it isn't, to the same table
    crate = build_zoo_row("crate", cabinet_id=None)
    drawer = build_zoo_row("drawer", cabinet_id=None)

    morango, ours = both([crate, drawer])

    assert morango.ids("crate") == ours.ids("crate") == {crate.id}
    assert morango.errors[drawer.id][1] == "django.db.utils.IntegrityError"
    assert ours.errors == {
        drawer.id: ("{'cabinet': ['This field cannot be null.']}", "django.core.exceptions.ValidationError")
    }


@pytest.mark.parametrize("hard", [False, True])
def test_several_deleted_targets_note_one_deletion(hard: bool) -> None:
    cabinets = [build_zoo_row("cabinet", deleted=True, hard_deleted=hard) for _ in range(2)]
    label = build_zoo_row("label", cabinet=cabinets[0], printed_for=cabinets[1])

    morango, ours = both([*cabinets, label])

    on_postgresql = connection.vendor == "postgresql"
    assert morango.aborted == ("django.db.utils.InternalError" if on_postgresql else None)
    assert (ours.deleted, ours.hard_deleted) == ({label.id}, {label.id} if hard else set())
    assert (ours.aborted, ours.errors, ours.app["label"]) == (None, {}, [])
