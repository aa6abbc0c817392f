"""Rows of their own table that records of a group require, by declared equivalents.

Such a row is there already, or it is another record of the group. A record that requires a row of which
neither is certain is left to its model's own code, which asks the database when it is the record's turn.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator
from typing import TypeAlias

from morango_celery.deserialization import sql
from morango_celery.deserialization.row_rules import KeyColumns, RowKey
from morango_celery.deserialization.rows import Row
from morango_celery.deserialization.task import DeserializeTask

Carriers: TypeAlias = "list[DeserializeTask]"


class RequiredRows:
    """Required rows of one group at a time."""

    def __init__(self) -> None:
        self._required: dict[DeserializeTask, set[RowKey]] = {}
        self._there: set[RowKey] = set()
        """Keys of rows in the database that keep them when the group is written."""

    def require(self, carrier: DeserializeTask, key: RowKey) -> None:
        """Note that a carrier's row may be written only if there is a row with this key."""
        self._required.setdefault(carrier, set()).add(key)

    def clear(self) -> None:
        self._required.clear()
        self._there.clear()

    def look_up(self, carriers: Carriers) -> None:
        """Look for the required rows in the database, before any of `carriers` is written.

        :param carriers: all of the group that may be written
        Cost: nothing, or one statement for each rule.
        """
        wanted = {key for carrier in carriers for key in self._needed(carrier)}
        arriving = {carrier.store.id: carrier for carrier in carriers} if wanted else {}
        for columns in self._columns():
            texts = [key.texts for key in wanted if key.columns == columns]
            if not texts:
                continue
            for store_id, *found in sql.select_keys(columns.model, columns.names, texts):
                key = RowKey(columns, tuple(found))
                if store_id not in arriving or key in _keys(arriving[store_id], [columns]):
                    self._there.add(key)

    def in_order(self, carriers: Carriers) -> tuple[Carriers, Carriers]:
        """Return the carriers in an order in which each comes after the rows that it requires.

        Others keep their order. A row that comes before one that it requires goes behind all of them, as if
        its model's own code had refused it at first.

        :returns: the ordered carriers, and those of which it isn't certain that there is such a row
        """
        if not self._required:
            return carriers, []
        columns = self._columns()
        there = set(self._there)
        ordered: Carriers = []
        waiting = carriers
        while waiting:
            later: Carriers = []
            for carrier in waiting:
                if there.issuperset(self._needed(carrier)):
                    ordered.append(carrier)
                    there.update(_keys(carrier, columns))
                else:
                    later.append(carrier)
            if len(later) == len(waiting):
                break
            waiting = later
        return ordered, waiting

    def lost(self, carriers: Carriers, skipped_ids: Collection[str]) -> Carriers:
        """Return the carriers that were written without the rows that they require.

        :param skipped_ids: ids of those that were not written, for a local edit
        """
        if not self._required or not skipped_ids:
            return []
        return self.in_order([carrier for carrier in carriers if carrier.store.id not in skipped_ids])[1]

    def _needed(self, carrier: DeserializeTask) -> Collection[RowKey]:
        """Return the keys that a carrier requires, unless its model's own code looks for them."""
        return self._required.get(carrier, ()) if isinstance(carrier.parsed, Row) else ()

    def _columns(self) -> set[KeyColumns]:
        return {key.columns for keys in self._required.values() for key in keys}


def _keys(carrier: DeserializeTask, columns: Collection[KeyColumns]) -> Iterator[RowKey]:
    """Yield the keys that the row of a carrier has; none where its model's own code may change it."""
    if isinstance(carrier.parsed, Row):
        table = carrier.model._meta.concrete_model
        for each in columns:
            if each.model is table:
                yield each.key(carrier.parsed.values)
