"""The comparison itself: it must see every kind of difference, and allow no more than the deviations say."""

from __future__ import annotations

import copy
import json
from typing import Any

import pytest

from tests.kolibri.breakage import BROKEN, NOT_UNIQUE, POISON
from tests.kolibri.compare import Outcome
from tests.kolibri.deviations import undocumented
from tests.kolibri.records import live, read, values, with_dependants
from tests.kolibri.scenarios import SCENARIOS
from tests.kolibri.verdict import Verdict, judge, judge_order

CLOCK = "2030-01-01T00:00:00+00:00"
SYNCED = "2026-11-20T15:30:11.301Z"

Database = dict[str, dict[str, dict[str, Any]]]


def stored(model_name: str = "log", **columns: Any) -> dict[str, Any]:
    clean = {
        "dirty_bit": False,
        "deleted": False,
        "deserialization_error": None,
        "deserialization_exception": None,
    }
    return {"model_name": model_name, "serialized": json.dumps({"seen_at": SYNCED}), **clean, **columns}


def database() -> Database:
    return {
        "app_log": {key: {"id": key, "text": "a", "seen_at": SYNCED} for key in ("one", "two")},
        "app_tree": {},
        "morango_store": {"one": stored(), "two": stored()},
        "morango_deletedmodels": {},
    }


def outcome(implementation: str, tables: Database, **attributes: Any) -> Outcome:
    models = {
        "log": {"table": "app_log", "is_tree": False, "clock_columns": ["seen_at"]},
        "tree": {"table": "app_tree", "is_tree": True, "clock_columns": []},
    }
    defaults: dict[str, Any] = {
        "again": None,
        "aborted": None,
        "poison": {},
        "retried": False,
        "seconds": 0.0,
    }
    return Outcome(
        implementation=implementation, tables=tables, models=models, clock=CLOCK, **{**defaults, **attributes}
    )


def verdict_on(morango: Database, ours: Database, **of_morango: Any) -> Verdict:
    return judge(outcome("morango", morango, **of_morango), outcome("ours", ours))


def test_equal_databases_pass_the_verdict() -> None:
    verdict = verdict_on(database(), database())
    assert verdict.holds
    assert verdict.records == verdict.saved == {"log": 2}


@pytest.mark.parametrize(
    ("table", "key", "column", "value"),
    [
        ("app_log", "one", "text", "b"),
        ("app_log", "one", "text", None),
        ("app_log", "one", "invented", 1),
        ("morango_store", "one", "dirty_bit", True),
        ("morango_store", "one", "deserialization_error", "why"),
        ("morango_store", "one", "serialized", "{}"),
        ("morango_deletedmodels", "three", "id", "three"),
        ("app_log", "three", "id", "three"),
        ("another", "three", "id", "three"),
    ],
)
def test_changed_value_or_added_row_fails_the_verdict(
    table: str, key: str, column: str, value: object
) -> None:
    ours = database()
    ours.setdefault(table, {}).setdefault(key, {})[column] = value
    assert not verdict_on(database(), ours).holds
    assert not verdict_on(ours, database()).holds


def test_missing_row_fails_the_verdict() -> None:
    ours = database()
    del ours["app_log"]["one"]
    verdict = verdict_on(database(), ours)
    assert [complaint for complaint in verdict.complaints if "app_log one (row)" in complaint]


def test_record_left_dirty_needs_an_error_even_where_morango_has_none() -> None:
    both = database()
    both["morango_store"]["one"]["dirty_bit"] = True
    assert verdict_on(both, both).complaints == ["left dirty without an error: log one"]


def test_ours_must_not_change_anything_when_run_again() -> None:
    again = database()
    again["app_log"]["one"]["text"] = "b"
    verdict = judge(outcome("morango", database()), outcome("ours", database(), again=again))
    assert not verdict.holds


def test_ours_must_not_abort_nor_depend_on_row_order() -> None:
    aborted = outcome("ours", database(), aborted="KeyError: 'No/Where'")
    assert not judge(outcome("morango", database()), aborted).holds
    other = database()
    other["app_log"]["one"]["text"] = "b"
    assert judge_order(outcome("ours", database()), outcome("ours", other))


def test_serialization_must_equal_morangos_for_every_model() -> None:
    right: dict[str, Any] = {"differences": [], "models": {"log": 2}}
    wrong: list[dict[str, Any]] = [{"differences": ["a != b"]}, {"models": {}}]
    verdicts = [
        judge(outcome("morango", database()), outcome("ours", database(), serialization={"new": serialized}))
        for serialized in (right, *({**right, **part} for part in wrong))
    ]
    assert [verdict.holds for verdict in verdicts] == [True, False, False]


def test_abort_of_morango_leaves_nothing_to_compare_with() -> None:
    assert not verdict_on(database(), database(), aborted="KeyError").holds
    group = {"bad": {"ids": ["one"], "aborted": None}}
    assert not verdict_on(database(), database(), aborted="KeyError", retried=True, poison=group).holds


def test_deleted_record_may_be_clean_where_morango_leaves_it_dirty() -> None:
    morango = database()
    del morango["app_log"]["one"]
    ours = copy.deepcopy(morango)
    morango["morango_store"]["one"] = stored(deleted=True, dirty_bit=True)
    ours["morango_store"]["one"] = stored(deleted=True)
    assert verdict_on(morango, ours).allowed == {"deleted-records-stay-dirty": 1}
    # ... but not if it is still there, nor if the record isn't deleted
    ours["app_log"]["one"] = morango["app_log"]["one"] = dict(database()["app_log"]["one"])
    assert not verdict_on(morango, ours).holds
    del ours["app_log"]["one"], morango["app_log"]["one"]
    for found in (morango, ours):
        found["morango_store"]["one"]["deleted"] = False
    assert not verdict_on(morango, ours).holds


def test_record_in_error_for_its_order_may_be_saved_as_morango_saves_it_later() -> None:
    morango, ours = database(), database()
    del morango["app_log"]["one"]
    morango["morango_store"]["one"] = stored(
        dirty_bit=True, deserialization_error="too early", deserialization_exception="Error"
    )
    assert verdict_on(morango, ours, again=database()).allowed == {"row-order": 4}
    assert not verdict_on(morango, ours).holds  # Morango never saves it
    assert not verdict_on(ours, morango, again=database()).holds  # ours fails where Morango saves
    different = database()
    different["app_log"]["one"]["text"] = "b"
    assert not verdict_on(morango, ours, again=different).holds


def test_time_may_be_the_synced_one_where_morango_takes_its_clock() -> None:
    morango, ours = database(), database()
    morango["app_log"]["one"]["seen_at"] = CLOCK
    assert verdict_on(morango, ours).allowed == {"auto-now": 1}
    ours["app_log"]["one"]["seen_at"] = "2026-11-20T15:30:12"
    assert not verdict_on(morango, ours).holds


def test_poisonous_record_may_be_in_error_where_morango_aborts() -> None:
    morango = database()
    del morango["app_log"]["one"]
    morango["morango_store"]["one"]["dirty_bit"] = True
    ours = copy.deepcopy(morango)
    ours["morango_store"]["one"].update(deserialization_error="why", deserialization_exception="KeyError")
    group = {"bad": {"ids": ["one"], "aborted": "KeyError"}}
    aborted = {"aborted": "KeyError", "retried": True}
    verdict = verdict_on(morango, ours, poison=group, **aborted)
    assert verdict.allowed == {"one-bad-record": 2}
    two = json.dumps({"other_id": "2" * 32})
    for found in (morango, ours):
        found["morango_store"]["one"]["serialized"] = two
    ours["morango_store"]["one"]["deserialization_error"] = f"log with id {'2' * 32} failed to deserialize"
    verdict = verdict_on(morango, ours, poison=group, **aborted)
    assert verdict.allowed == {"one-bad-record": 2}  # the record it names isn't in error
    ours["morango_store"]["2" * 32] = morango["morango_store"]["2" * 32] = stored(
        dirty_bit=True, deserialization_error="why"
    )
    verdict = verdict_on(morango, ours, poison=group, **aborted)
    assert verdict.allowed == {"failed-targets": 2}
    group = {"bad": {"ids": ["two"], "aborted": "KeyError"}}
    assert not verdict_on(morango, ours, poison=group, **aborted).holds


def test_record_deleted_with_its_target_may_be_clean() -> None:
    morango = database()
    del morango["app_log"]["one"]
    morango["morango_deletedmodels"]["one"] = {"id": "one"}
    ours = copy.deepcopy(morango)
    morango["morango_store"]["one"]["dirty_bit"] = True
    assert verdict_on(morango, ours).allowed == {"propagated-deletions-stay-dirty": 1}
    del morango["morango_deletedmodels"]["one"], ours["morango_deletedmodels"]["one"]
    assert not verdict_on(morango, ours).holds  # nothing will delete it elsewhere


def test_grandchild_of_a_deleted_record_may_be_deleted_where_morango_aborts() -> None:
    morango = database()
    del morango["app_log"]["one"]
    ours = copy.deepcopy(morango)
    morango["morango_store"]["one"]["dirty_bit"] = True
    ours["morango_deletedmodels"]["one"] = {"id": "one"}
    group = {"grandchild": {"ids": ["one"], "aborted": "IntegrityError"}}
    verdict = verdict_on(morango, ours, poison=group, aborted="IntegrityError", retried=True)
    assert verdict.allowed == {"propagated-deletion-levels": 2}
    assert not verdict_on(morango, ours).holds


def test_record_of_an_unknown_model_may_be_in_error() -> None:
    morango, ours = database(), database()
    for found in (morango, ours):
        found["morango_store"]["three"] = stored("spaceship", dirty_bit=True)
    ours["morango_store"]["three"].update(deserialization_error="why", deserialization_exception="Unknown")
    assert verdict_on(morango, ours).allowed == {"unregistered-models": 2}
    assert not verdict_on(morango, morango).holds


def test_dirty_parent_may_be_called_dirty() -> None:
    morango = database()
    for key, parent in (("one", "two"), ("two", "")):
        del morango["app_log"][key]
        error: dict[str, Any] = {
            "dirty_bit": True,
            "deserialization_error": "why",
            "deserialization_exception": "Error",
        }
        morango["morango_store"][key] = stored(_self_ref_fk=parent, **error)
    ours = copy.deepcopy(morango)
    morango["morango_store"]["one"]["deserialization_error"] = "Parent does not exist in Store; alas"
    ours["morango_store"]["one"]["deserialization_error"] = "Parent is dirty; alas"
    assert verdict_on(morango, ours).allowed == {"dirty-parents-called-missing": 1}
    assert not verdict_on(ours, morango).holds


def test_deviation_needs_a_line_in_the_documentation() -> None:
    assert undocumented({"auto-now", "invented"}) == ["invented"]


def test_breakages_break_records_of_their_own() -> None:
    rows = read("small").store
    before = {row["id"]: dict(row) for row in rows}
    ids = [breakage.apply(rows) for breakage in [*BROKEN, NOT_UNIQUE, *POISON]]
    changed = [row["id"] for row in rows if row != before.get(row["id"])]
    assert len(set(ids)) == len(ids)
    assert sorted(changed) == sorted(ids)


def test_dependants_are_found_through_others() -> None:
    rows = read("small").store
    summary_id = values(live(rows, "masterylog")[0])["summarylog_id"]
    found = with_dependants(rows, {summary_id})
    models = {row["model_name"] for row in rows if row["id"] in found}
    assert models == {"contentsummarylog", "masterylog", "attemptlog"}


@pytest.mark.parametrize("scenario", SCENARIOS, ids=lambda scenario: scenario.name)
def test_order_is_the_same_every_time(scenario: Any) -> None:
    for seed in (0, 1):
        first, second = scenario.in_order(seed), scenario.in_order(seed)
        assert first == second
    assert scenario.in_order(1) != scenario.in_order(0)
