"""Models' own code that looks at rows which the same sync writes: it sees them as that left them.

In a second sync the rows are there already, as the first one left them, and all of them change.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest
from morango.models import Store

from morango_celery import deserialize_from_store
from morango_celery.upstream import registered_models
from tests.neighbours.models import PROFILE, REFUSED, UNSAVED
from tests.neighbours.rows import build_row, build_tree, renamed, renamed_all
from tests.parity.harness import assert_same, both
from tests.support.comparison import existing, run

TREES = ("place", "shelf", "entry", "link")
LEVELS = [1, 3, 4, 4]
PATHS = {"place": ["path"], "shelf": ["path"], "entry": ["parsed", "cleaned", "saved"], "link": ["path"]}
"""Columns that say through which parents a record was reached."""


@pytest.fixture(params=["chosen", "each"], autouse=True)
def _way(request: pytest.FixtureRequest, settings: Any) -> None:
    models = registered_models(PROFILE) if request.param == "each" else []
    labels = [model._meta.label for model in models]
    settings.MORANGO_CELERY = {**settings.MORANGO_CELERY, "SAVE_INDIVIDUALLY": labels}


def levels_of(model_name: str) -> list[int]:
    """Return the shape of a tree; that of a one-to-one relation is a chain."""
    return [1] * 6 if model_name == "link" else LEVELS


def left_by_first_sync(rows: Sequence[Store]) -> list[Any]:
    """Return the app rows that a sync of `rows` leaves."""
    from django.apps import apps

    table = rows[0].model_name if rows[0].model_name not in ("country", "city") else "zone"
    model: Any = apps.get_model("neighbours", table)
    return [model(**values) for values in run(deserialize_from_store, rows).app[table]]


@pytest.mark.parametrize("model_name", TREES)
def test_code_sees_its_parents_in_a_first_sync(model_name: str) -> None:
    rows = build_tree(model_name, levels_of(model_name))
    result = assert_same(rows)
    assert not result.errors


@pytest.mark.parametrize("model_name", TREES)
def test_code_sees_its_changed_parents_in_a_second_sync(model_name: str) -> None:
    rows = build_tree(model_name, levels_of(model_name))
    app = left_by_first_sync(rows)
    result = assert_same(renamed_all(rows), app=app)
    assert not result.errors
    assert all("new 0.0" in row[column] for column in PATHS[model_name] for row in result.app[model_name])


@pytest.mark.parametrize("model_name", TREES)
def test_children_that_come_before_their_parents_see_them_changed(model_name: str) -> None:
    rows = build_tree(model_name, levels_of(model_name))
    app = left_by_first_sync(rows)
    assert not assert_same(renamed_all(rows)[::-1], app=app).errors


@pytest.mark.parametrize("model_name", TREES)
def test_code_sees_changed_and_clean_parents_together(model_name: str) -> None:
    rows = build_tree(model_name, levels_of(model_name))
    app = left_by_first_sync(rows)
    changed = [row for row in renamed_all(rows) if "1." not in row.serialized]
    clean = [row for row in rows if "1." in row.serialized]
    for row in clean:
        row.dirty_bit = False
    assert not assert_same([*changed, *clean], app=app).errors


def zones() -> list[Store]:
    """Return a tree of proxies, of which some see the same row as a parent and as a country."""
    country = build_row("country", name="country")
    part = build_row("country", name="part", parent_id=country.id, country_id=country.id)
    cities = [
        build_row("city", name=f"city {number}", parent_id=above.id, country_id=country.id)
        for number, above in enumerate([country, part, part])
    ]
    quarter = build_row("city", name="quarter", parent_id=cities[1].id, country_id=part.id)
    return [country, part, *cities, quarter]


@pytest.mark.parametrize("order", [1, -1])
def test_row_seen_through_several_proxies_is_the_changed_one(order: int) -> None:
    rows = zones()
    app = left_by_first_sync(rows)
    result = assert_same(renamed_all(rows)[::order], app=app)
    assert not result.errors
    assert all("new country" in row["path"] for row in result.app["zone"])


def test_code_sees_rows_of_an_earlier_group_of_the_batch() -> None:
    places = build_tree("place", [1, 2])
    guests = [build_row("guest", name=f"guest {n}", place=places[n % 3]) for n in range(5)]
    app = left_by_first_sync(places)
    result = assert_same([*renamed_all(places), *guests], app=app)
    assert not result.errors
    assert all(row["address"].startswith("new 0.0") for row in result.app["guest"])


@pytest.mark.parametrize("model_name", TREES)
def test_record_that_fails_leaves_the_others_as_they_are(model_name: str) -> None:
    rows = build_tree(model_name, levels_of(model_name))
    app = left_by_first_sync(rows)
    changed = renamed_all(rows)
    changed[2] = renamed(rows[2], "x" * 51)  # longer than its column
    result = assert_same(changed, app=app)
    assert rows[2].id in result.errors


@pytest.mark.parametrize("place", [1, 4, 11])
def test_record_that_the_table_refuses_takes_its_descendants_along_and_no_others(place: int) -> None:
    rows = build_tree("place", LEVELS)
    app = left_by_first_sync(rows)
    changed = renamed_all(rows)
    changed[place] = renamed(rows[place], REFUSED)
    result = assert_same(changed, app=app)
    assert rows[place].id in result.errors


def test_children_of_what_its_own_save_refuses_stay_as_they_are() -> None:
    rows = build_tree("place", [2, 4, 4])
    app = left_by_first_sync(rows)
    changed = renamed_all(rows)
    changed[0] = renamed(rows[0], UNSAVED)
    result = assert_same(changed, app=app)
    kept = {row["name"] for row in result.app["place"] if not row["name"].startswith("new")}
    assert kept == {"0.0", "1.0", "1.2", "2.0", "2.2"}


def test_counts_include_all_records_before() -> None:
    rows = [build_row("ticket") for _ in range(7)]
    theirs, ours = both(rows, batch_sizes=[1000])
    numbers = [sorted(row["number"] for row in found.app["ticket"]) for found in (theirs, ours)]
    assert numbers == [list(range(1, 8))] * 2


NAMES = ["plain", "goes on", "gives up", "plain", "plain", "gives up", "goes on", "plain"]


def test_savepoints_of_a_models_own_take_nothing_else_along() -> None:
    rows = [build_row("claim", name=name) for name in NAMES]
    theirs, ours = both(rows, batch_sizes=[1000])
    for found in (theirs, ours):
        assert sorted(row["name"] for row in found.app["claim"]) == ["goes on"] * 2 + ["plain"] * 4
        assert sorted(row["before"] for row in found.app["claim"]) == [0, 1, 2, 3, 4, 5]
        assert not any(found.dirty.values())


def test_next_record_reads_the_writes_of_a_models_code() -> None:
    rows = build_tree("heap", [2, 6, 6])
    app = left_by_first_sync(rows)
    result = assert_same(renamed_all(rows), app=app)
    counted = {row["id"]: row["saved_below"] for row in result.app["heap"]}
    assert [counted[row.id] for row in rows] == [3, 3, *[1] * 6, *[0] * 6]


def test_parent_as_this_sync_has_it_decides_about_its_children() -> None:
    rows = build_tree("shelf", [2, 4])
    app = left_by_first_sync(rows)
    result = assert_same([renamed(rows[0], "full"), *renamed_all(rows[1:])], app=app)
    assert set(result.errors) == {rows[2].id, rows[4].id}


def test_parent_that_was_full_takes_its_children_now() -> None:
    rows = build_tree("shelf", [2, 4])
    full = existing(rows[0], name="full", path="full")
    result = assert_same(rows, app=[full])
    assert not result.errors
