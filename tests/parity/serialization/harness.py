"""The same app rows, Store rows and notes of deletions through Morango's serialization and through ours.

Each function runs in a transaction of its own that is rolled back. All columns of all tables are compared,
texts to the byte.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from django.db import transaction
from django.db.models import Model
from morango.models import Store, SyncableModel
from morango.models.certificates import Filter
from morango.models.core import DatabaseMaxCounter, InstanceIDModel, RecordMaxCounter
from morango.sync.operations import _serialize_into_store as morangos

from morango_celery.serialization import serialize_into_store
from tests.support.comparison import existing, rolled_back, save_all
from tests.support.differences import differences
from tests.support.dump import Tables, dump
from tests.support.factories import build_store_row
from worker.school.models import PROFILE

Engine = Callable[..., None]
Row = dict[str, Any]


@dataclass
class Outcome:
    """State of the database after a serialization."""

    tables: Tables
    aborted: Exception | None = None

    @property
    def store(self) -> dict[str, Row]:
        """Store rows by id."""
        return self.tables["morango_store"]

    @property
    def counters(self) -> dict[str, Any]:
        """RecordMaxCounters of this device by the Store row's id."""
        rows = self.tables["morango_recordmaxcounter"].values()
        here = device()
        return {str(row["store_model_id"]): row["counter"] for row in rows if row["instance_id"] == here}

    def dirty(self, table: str) -> set[str]:
        """Ids of the app rows that are still to be serialized."""
        return {key for key, row in self.tables[table].items() if row["_morango_dirty_bit"]}


def device() -> str:
    """Return the id of the Morango instance that serializes here."""
    return str(InstanceIDModel.get_or_create_current_instance()[0].id)


def run(
    engine: Engine,
    app: Sequence[SyncableModel] = (),
    stored: Sequence[Store] = (),
    others: Sequence[Model] = (),
    *,
    profile: str = PROFILE,
    filter: Filter | None = None,  # noqa: A002
    times: int = 1,
) -> Outcome:
    """Save everything, serialize with `engine`, and return the state after that.

    :param others: rows of Morango's other tables: deletions, counters
    """
    device()  # which is made at random when it isn't there, and must be the same for both
    outcome = Outcome({})
    with rolled_back():
        save_all(stored, app)
        for row in others:
            copy.copy(row).save(force_insert=True)
        try:
            with transaction.atomic():
                for _ in range(times):
                    engine(profile, filter)
        except Exception as error:
            outcome.aborted = error
        outcome.tables = dump()
    return outcome


def both(*rows: Any, **arguments: Any) -> tuple[Outcome, Outcome]:
    """Return Morango's result for the rows, and ours. It takes the arguments of `run`."""
    return run(morangos, *rows, **arguments), run(serialize_into_store, *rows, **arguments)


def assert_same(*rows: Any, **arguments: Any) -> Outcome:
    """Both engines leave the same database behind, and neither aborts; returns it."""
    theirs, ours = both(*rows, **arguments)
    assert theirs.aborted is None, theirs.aborted
    assert ours.aborted is None, ours.aborted
    assert_equal(theirs, ours)
    return ours


def assert_equal(theirs: Outcome, ours: Outcome) -> None:
    found = "\n".join(
        f"{d.table} {d.key} {d.column}\n  Morango: {d.morango!r}\n  ours:    {d.ours!r}"
        for d in differences(theirs.tables, ours.tables)
    )
    assert not found, found


def edited(store: Store, **values: Any) -> SyncableModel:
    """Return an app row with a local edit: `values` over those of the Store row, which need not be saved."""
    row: SyncableModel = existing(store, **{"_morango_dirty_bit": True, **values})
    return row


def unit(**values: Any) -> Store:
    """Return the clean Store row of a unit, as the last sync left it."""
    return build_store_row("unit", **{"dirty": False, **values})


def record_counter(store: Store, counter: int, instance_id: str | None = None) -> RecordMaxCounter:
    """:param instance_id: this device, if None"""
    return RecordMaxCounter(store_model_id=store.id, instance_id=instance_id or device(), counter=counter)


def database_counter(partition: str, counter: int, instance_id: str | None = None) -> DatabaseMaxCounter:
    """:param instance_id: this device, if None"""
    return DatabaseMaxCounter(partition=partition, instance_id=instance_id or device(), counter=counter)
