"""Columns of Store that no known release of Morango has: they are kept and written as they are."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pytest

from tests.parity import harness
from tests.parity.serialization.harness import assert_same, edited, unit
from tests.support.factories import build_store_row
from tests.support.further_columns import DEFAULT, MARK, RANK, further_columns

FURTHER = {"further_rank": 3, "further_mark": "synced"}


@pytest.fixture(autouse=True)
def _further_columns(_inside_a_transaction: None) -> Iterator[None]:
    with further_columns():
        yield


def columns_of(row: dict[str, Any]) -> tuple[Any, ...]:
    return row[RANK], row[MARK], row["further_unknown"]


def test_deserialized_records_keep_further_columns() -> None:
    parent = build_store_row("unit", columns=FURTHER)
    rows = [
        parent,
        build_store_row("unit", parent=parent),
        build_store_row("lesson", unit=parent, columns={"further_mark": "other"}),
        build_store_row("lesson", unit_id="ab" * 16, columns=FURTHER),
        build_store_row("unit", deleted=True, columns=FURTHER),
    ]

    result = harness.assert_same(rows)

    kept = {row["id"]: (row["further_rank"], row["further_mark"]) for row in result.stored.values()}
    expected = [(3, "synced"), (None, DEFAULT), (None, "other"), (3, "synced"), (3, "synced")]
    assert kept == dict(zip([row.id for row in rows], expected, strict=True))
    assert len(result.errors) == 1


def test_new_records_get_the_defaults_of_further_columns() -> None:
    rows = [edited(unit()) for _ in range(2)]

    result = assert_same(rows)

    assert [columns_of(result.store[row.id]) for row in rows] == [(None, DEFAULT, 5)] * 2


def test_serialized_again_records_keep_further_columns() -> None:
    stored = unit(columns=FURTHER)
    dirty = unit(columns=FURTHER, dirty=True)

    result = assert_same([edited(stored, name="here"), edited(dirty, name="here")], [stored, dirty])

    assert [columns_of(result.store[row.id]) for row in (stored, dirty)] == [(3, "synced", 5)] * 2
    assert json.loads(result.store[stored.id]["serialized"])["name"] == "here"
