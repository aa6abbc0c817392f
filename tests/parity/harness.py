"""Morango's own function and ours on the same rows, with the same database left behind."""

from __future__ import annotations

from collections.abc import Collection, Iterable
from typing import Any

from morango.models import Store
from morango.sync.operations import _deserialize_from_store as morangos

from morango_celery import deserialize_from_store
from tests.support.comparison import Database, difference, run
from tests.support.factories import SCHOOL_ID
from worker.school.models import Unit


def app_row(store: Store, **values: Any) -> Unit:
    """Return the app row of a unit's Store row, as an earlier deserialization left it."""
    defaults = {"name": "old", "_morango_dirty_bit": False}
    return Unit(
        id=store.id,
        school_id=SCHOOL_ID,
        _morango_source_id=store.source_id,
        _morango_partition=store.partition,
        **{**defaults, **values},
    )


def both(rows: Iterable[Store], **arguments: Any) -> tuple[Database, Database]:
    """Return Morango's result for the rows, and ours."""
    rows = list(rows)
    theirs = run(morangos, rows, **arguments)
    return theirs, run(deserialize_from_store, rows, **arguments, known=theirs)


def assert_same(rows: Iterable[Store], **arguments: Any) -> Database:
    """Both engines leave the same database behind, and neither aborts; returns it."""
    theirs, ours = both(rows, **arguments)
    assert theirs.aborted is None, theirs.aborted
    assert ours == theirs, difference(theirs, ours)
    return ours


def assert_same_but_clean(
    rows: Iterable[Store],
    *,
    deleted: Collection[Store] = (),
    propagated: Collection[Store] = (),
    **arguments: Any,
) -> Database:
    """Assert the same as `assert_same`, except that Morango leaves these records dirty, where ours are clean.

    :param deleted: stay dirty even after the next serialization
    :param propagated: records deleted along with their targets; stay dirty until then
    """
    theirs, ours = both(rows, **arguments)
    assert theirs.aborted is None, theirs.aborted
    for row in (*deleted, *propagated):
        assert (theirs.dirty.pop(row.id), ours.dirty.pop(row.id)) == (True, False)
    for row in deleted:
        assert theirs.serialized[row.id].pop("dirty_bit") is True
        assert ours.serialized[row.id].pop("dirty_bit") is False
    assert ours == theirs, difference(theirs, ours)
    return ours
