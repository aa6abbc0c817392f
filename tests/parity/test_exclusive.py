"""Models with a ``save()`` that reads or writes other rows: the results are those of one after another."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest
from morango.models import Store

from morango_celery import deserialize_from_store
from morango_celery.deserialization.traits import WriteStrategy, traits_of
from tests.neighbours.models import REFUSED, Branch, Memo, Ticket, Vote
from tests.neighbours.rows import build_row, build_tree, renamed, renamed_all
from tests.parity.harness import assert_same, both
from tests.support.comparison import Database, run

SIZES = (1000, 3)
"""Batch sizes in records: one that holds a whole tree, and one that cuts it."""

TREE_COLUMNS = ("lft", "rght", "tree_id", "level")


def exclusive(settings: Any, *models: Any) -> None:
    labels = [model._meta.label for model in models]
    settings.MORANGO_CELERY = {**settings.MORANGO_CELERY, "EXCLUSIVE_MODELS": labels}


def trees(found: Database) -> dict[str, tuple[int, ...]]:
    return {row["id"]: tuple(row[name] for name in TREE_COLUMNS) for row in found.app["branch"]}


def app_rows_of(rows: Sequence[Store]) -> list[Branch]:
    """Return the app rows after a sync of a tree's rows, each level ordered below the one before it."""
    return [Branch(**values) for values in run(deserialize_from_store, rows).app["branch"]]


def test_model_is_exclusive_by_its_class_or_by_the_settings(settings: Any) -> None:
    assert [traits_of(model).exclusive for model in (Branch, Vote, Memo)] == [True, False, False]
    exclusive(settings, Vote)
    assert [traits_of(model).write_strategy for model in (Branch, Vote, Memo)] == [
        WriteStrategy.INDIVIDUAL,
        WriteStrategy.INDIVIDUAL,
        WriteStrategy.BULK,
    ]


@pytest.mark.parametrize("number", [1, 2, 7])
def test_roots_of_one_sync_get_tree_ids_of_their_own(number: int) -> None:
    rows = [build_row("branch", name=f"root {place}") for place in range(number)]
    theirs, ours = both(rows, batch_sizes=SIZES[:1])
    for found in (theirs, ours):
        assert not found.errors
        assert sorted(trees(found).values()) == [(1, 2, tree_id, 0) for tree_id in range(1, number + 1)]


def test_chain_of_nodes_is_numbered_as_by_morango() -> None:
    rows = build_tree("branch", [1] * 6)
    result = assert_same(rows, batch_sizes=SIZES)
    assert [trees(result)[row.id] for row in rows] == [(n, 13 - n, 1, n - 1) for n in range(1, 7)]


def test_node_below_an_existing_one_is_numbered_as_by_morango() -> None:
    rows = build_tree("branch", [1, 1, 1])
    app = app_rows_of(rows)
    below = build_row("branch", parent_id=rows[1].id)
    for row in rows:
        row.dirty_bit = False
    result = assert_same([*rows, below], app=app, batch_sizes=SIZES)
    assert trees(result)[below.id] == (5, 6, 1, 2)


def test_second_sync_of_a_chain_keeps_its_numbers() -> None:
    rows = build_tree("branch", [1] * 4)
    assert not assert_same(renamed_all(rows), app=app_rows_of(rows), batch_sizes=SIZES).errors


def test_tree_is_sound_whatever_the_batches() -> None:
    rows = build_tree("branch", [3, 6, 12])
    for size in SIZES:
        found = run(deserialize_from_store, rows, batch_sizes=[size])
        assert not found.errors
        assert_sound(found, rows)


def assert_sound(found: Database, rows: Sequence[Store]) -> None:
    """Assert that each node encloses those below it, and that no two share a number."""
    there = trees(found)
    numbers = [(tree_id, edge) for lft, rght, tree_id, _ in there.values() for edge in (lft, rght)]
    assert len(set(numbers)) == len(numbers) == 2 * len(rows)
    for row in rows:
        if row._self_ref_fk:
            (lft, rght, tree_id, level), above = there[row.id], there[row._self_ref_fk]
            assert (above[0] < lft < rght < above[1], tree_id, level) == (True, above[2], above[3] + 1)


@pytest.mark.parametrize("setting", ["", "SAVE_INDIVIDUALLY", "EXCLUSIVE_MODELS"])
def test_counts_in_another_row_are_those_of_one_after_another(setting: str, settings: Any) -> None:
    settings.MORANGO_CELERY = {
        **settings.MORANGO_CELERY,
        **({setting: [Vote._meta.label]} if setting else {}),
    }
    rows = [build_row("vote", subject=subject) for subject in ["lunch", "tea"] * 5]

    def and_tallied(engine: Any) -> list[tuple[str, int]]:
        from tests.neighbours.models import Tally

        counts: list[tuple[str, int]] = []

        def counting(*args: Any, **kwargs: Any) -> None:
            engine(*args, **kwargs)
            counts[:] = Tally.objects.order_by("subject").values_list("subject", "votes")

        run(counting, rows, batch_sizes=SIZES)
        return counts

    assert and_tallied(deserialize_from_store) == [("lunch", 5), ("tea", 5)]


def test_failing_records_of_exclusive_models_cost_only_themselves(settings: Any) -> None:
    from tests.neighbours.models import Place

    exclusive(settings, Place)
    rows = build_tree("place", [2, 6, 6])
    for place, name in ((0, "x" * 51), (4, REFUSED), (9, REFUSED)):
        rows[place] = renamed(rows[place], name)
    result = assert_same(rows, batch_sizes=SIZES)
    assert len(result.errors) == 8


def test_numbers_by_the_highest_existing_one_have_no_gaps(settings: Any) -> None:
    exclusive(settings, Ticket)
    rows = [build_row("ticket") for _ in range(8)]
    rows[3] = renamed(rows[3], "x" * 51)
    for size in SIZES:
        found = run(deserialize_from_store, rows, batch_sizes=[size])
        assert sorted(row["number"] for row in found.app["ticket"]) == list(range(1, 8))
