"""Statements don't grow with the rows of a chunk, and chunks don't show in the result."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import pytest
from django.db import connection
from django.test.utils import CaptureQueriesContext
from morango.models import DeletedModels, Store, SyncableModel

from morango_celery.serialization import serialize_into_store
from morango_celery.serialization.source import CHUNK_ROWS
from tests.parity.serialization.harness import assert_same, device, edited, unit
from tests.support.comparison import rolled_back, save_all
from worker.school.models import PROFILE


@contextmanager
def chunks_of(rows: int, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    with monkeypatch.context() as patch:
        for module in ("store", "source", "dirty_bits"):
            patch.setattr(f"morango_celery.serialization.{module}.CHUNK_ROWS", rows)
        yield


def statements(app: Sequence[SyncableModel], stored: Sequence[Store] = ()) -> int:
    """Return the number of statements of a serialization, as the database counts them."""
    device()
    with rolled_back():
        save_all(stored, app)
        deleted = [DeletedModels(id=row.id, profile=PROFILE) for row in stored]
        DeletedModels.objects.bulk_create(deleted)
        with CaptureQueriesContext(connection) as captured:
            serialize_into_store(PROFILE)
    return len(captured)


def mixed(rows: int) -> tuple[list[SyncableModel], list[Store]]:
    """So many edited rows, every other one of them new."""
    pairs = [(unit(dirty=True), unit()) for _ in range((rows + 1) // 2)]
    app = [edited(row, name="here") for pair in pairs for row in pair]
    return app[:rows], [stored for stored, _ in pairs]


def test_rows_of_a_chunk_take_no_statement_each() -> None:
    assert statements(*mixed(4)) == statements(*mixed(400))


def test_further_chunk_takes_three_statements(monkeypatch: pytest.MonkeyPatch) -> None:
    """One statement looks rows up in the Store, one adds absent ones, one changes the others."""
    by_chunk = []
    for chunk_rows in (40, 10):
        with chunks_of(chunk_rows, monkeypatch):
            by_chunk.append(statements(*mixed(40)))
    assert by_chunk[1] - by_chunk[0] == 3 * 3


def test_rows_beyond_a_chunk_are_serialized() -> None:
    assert len(assert_same(*mixed(CHUNK_ROWS + 1)).counters) == CHUNK_ROWS + 1


@pytest.mark.parametrize("chunk_rows", [1, 2, 3])
def test_result_does_not_depend_on_chunks(chunk_rows: int, monkeypatch: pytest.MonkeyPatch) -> None:
    with chunks_of(chunk_rows, monkeypatch):
        assert len(assert_same(*mixed(7)).counters) == 7
