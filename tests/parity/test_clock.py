"""Columns that an ordinary ``save()`` fills by the local clock: a synced value is never replaced."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import pytest
from django.utils import timezone

from tests.model_zoo.rows import build_zoo_row
from tests.parity.harness import both
from tests.support.comparison import Database, existing

HOME = build_zoo_row("region", dirty=False)
PERSON = build_zoo_row("person", home=HOME, dirty=False)
THERE = [existing(HOME), existing(PERSON)]


@pytest.fixture(autouse=True)
def _now(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(timezone, "now", lambda: datetime(2030, 1, 1, tzinfo=UTC))


def years(database: Database) -> list[tuple[int, int]]:
    assert database.aborted is None
    return [(row["began_at"].year, row["changed_at"].year) for row in database.app["visit"]]


def visit(**fields: Any) -> Any:
    return build_zoo_row("visit", person=PERSON, **fields)


def test_clocks_of_a_new_row_are_the_synced_ones() -> None:
    theirs, ours = both([HOME, PERSON, visit()], app=THERE)
    assert years(theirs) == [(2030, 2030)]
    assert years(ours) == [(2026, 2026)]


def test_clocks_of_an_existing_row_are_the_synced_ones() -> None:
    """Morango keeps the synced beginning of a row that it updates."""
    row = visit()
    older = existing(row, began_at="2025-01-01T00:00:00Z", changed_at="2025-01-01T00:00:00Z")
    theirs, ours = both([HOME, PERSON, row], app=[*THERE, older])
    assert years(theirs) == [(2026, 2030)]
    assert years(ours) == [(2026, 2026)]


@pytest.mark.filterwarnings("ignore:DateTimeField Visit:RuntimeWarning")
@pytest.mark.parametrize("value", ["2020-01-01T00:00:00+05:00", "2020-01-01T00:00:00.5Z", "2020-01-01"])
def test_clock_is_read_in_any_form(value: str) -> None:
    theirs, ours = both([HOME, PERSON, visit(began_at=value, changed_at=value)], app=THERE)
    assert ours.errors == theirs.errors
    if not ours.errors:
        assert {year for pair in years(ours) for year in pair} <= {2019, 2020}


@pytest.mark.parametrize("name", ["began_at", "changed_at"])
def test_missing_value_is_the_clocks(name: str) -> None:
    row = visit()
    row.serialized = row.serialized.replace(f'"{name}"', '"unknown"')
    theirs, ours = both([HOME, PERSON, row], app=THERE)
    assert ours.errors == theirs.errors
    for database in (theirs, ours):
        assert [found[name].year for found in database.app["visit"]] == [2030] * (not ours.errors)


@pytest.mark.parametrize("value", [None, "", "soon"])
@pytest.mark.parametrize("name", ["began_at", "changed_at"])
def test_value_that_is_no_time_is_its_records_error(name: str, value: object) -> None:
    theirs, ours = both([HOME, PERSON, visit(**{name: value})], app=THERE)
    assert ours.errors == theirs.errors
    assert (ours.dirty, len(ours.app["visit"])) == (theirs.dirty, len(theirs.app["visit"]))


def test_number_costs_only_its_record() -> None:
    bad, good = visit(changed_at=5), visit()
    theirs, ours = both([HOME, PERSON, bad, good], app=THERE)
    assert theirs.aborted == "builtins.TypeError"
    assert (list(ours.errors), ours.ids("visit")) == ([bad.id], {good.id})


def test_next_serialization_sends_the_same_as_with_morango() -> None:
    row = visit()
    theirs, ours = both([HOME, PERSON, row], app=THERE)
    assert theirs.serialized[row.id] == ours.serialized[row.id]
    assert theirs.counted == ours.counted
