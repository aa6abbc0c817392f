"""Names of the indexes of waiting rows: later versions, too, find an index by its name."""

from __future__ import annotations

from dataclasses import replace

import pytest

from morango_celery.reading.indexes import MAX_NAME_BYTES, SyncIndex, sync_indexes

INDEX = SyncIndex("school_unit", "_morango_partition", "_morango_dirty_bit")


def test_names_stay_as_they_are() -> None:
    assert INDEX.name == "school_unit_f80d1243_sync"


def test_each_definition_has_a_name_of_its_own() -> None:
    others = [replace(INDEX, table="school_units"), replace(INDEX, partition="p"), replace(INDEX, waits="w")]
    assert len({index.name for index in [INDEX, *others]}) == 4
    wanted = sync_indexes()
    assert len({index.name for index in wanted}) == len(wanted)


@pytest.mark.parametrize("table", ["x" * 200, "é" * 100, '"Filing Room"."Sign"', "a b-c"])
def test_name_is_one_that_postgresql_keeps(table: str) -> None:
    name = replace(INDEX, table=table).name
    assert len(name.encode()) <= MAX_NAME_BYTES
    assert name.isidentifier()
    assert name != replace(INDEX, table=f"{table}x").name
