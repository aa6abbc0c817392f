"""Unit of work: changes are collected until the order among them matters, then written in bulk."""

from __future__ import annotations

from collections.abc import Set
from typing import Any

from django.core.serializers.base import DeserializedObject
from django.db.models import Model

from morango_celery.db.dialect import dialect
from morango_celery.equivalents import NotFastPath
from morango_celery.oplog import relations, sql
from morango_celery.oplog.deleting import OrderDependencyError, affects_others, delete_objects
from morango_celery.oplog.lines import Change, Operation
from morango_celery.oplog.meta import MAX_KEYS, Key
from morango_celery.oplog.order import place, referenced_first
from morango_celery.oplog.rows import (
    ObjectRow,
    Table,
    deserialized,
    require_ingested,
    row_of,
    table_of,
)

MAX_BYTES = 8 * 1024 * 1024
"""Size of the collected lines at which they are written. They take a few times as much memory."""


class UnitOfWork:
    """Collector of changes in their order. The database ends as if each had been applied alone.

    Of several changes of an object only the last is written. A change that depends on one in between has the
    collected ones written first, or fails, and is then applied in smaller groups.
    """

    def __init__(self, models: Set[type[Model]], alone: bool = False) -> None:
        """Begin with no changes.

        :param models: the concrete models that may be written
        :param alone: True writes each object at once, by Django's own code, which words its error
        """
        self.models = models
        self.alone = alone
        self.saves: dict[Key, tuple[Table, ObjectRow]] = {}
        self.deletes: dict[type[Model], dict[Any, None]] = {}
        self.deferred: dict[Key, DeserializedObject] = {}
        self.saved_alone: set[type[Model]] = set()
        self.each: dict[type[Model], bool] = {}
        self.written: dict[Key, ObjectRow] = {}
        """References of written objects, if the database doesn't check these itself."""
        self.superseded: set[Key] = set()
        """Objects that were saved or deleted: earlier facts about them are void."""
        self.size_bytes = 0
        """Size of the lines of `saves`."""

    def add(self, change: Change) -> None:
        """Collect the objects of a change, and write the collected ones when there are too many.

        :raises ModelNotIngestedError: nothing was written of the object
        :raises Exception: any error of the database or a field about an object
        """
        for data in change.objects:
            table = table_of(data["model"])
            require_ingested(table, self.models)
            if change.operation is Operation.SAVE:
                self._save(table, data)
            else:
                self._delete(table, data)
            if len(self.saves) + sum(map(len, self.deletes.values())) >= MAX_KEYS:
                self.flush()
        self.size_bytes += len(change.line.content)
        if self.size_bytes >= MAX_BYTES:
            self.flush()

    def take(self, later: UnitOfWork) -> None:
        """Take over the facts about objects that another unit has written since this one last wrote."""
        for key in later.superseded:
            self.deferred.pop(key, None)
            self.written.pop(key, None)
        self.deferred.update(later.deferred)
        self.written.update(later.written)
        self.saved_alone |= later.saved_alone

    def complete(self) -> None:
        """Write the rest, deferred fields included: the targets of natural keys must be there now."""
        self.flush()
        for deferred in self.deferred.values():
            deferred.save_deferred_fields()
        self.deferred.clear()
        sql.advance_sequences(list(self.saved_alone))

    def _save(self, table: Table, data: dict[str, Any]) -> None:
        if self.alone or self._is_each(table):
            self.flush()
            self._save_alone(deserialized(data), table)
            return
        try:
            row = table.row(data)
        except NotFastPath:
            self._flush_before_lookup(table.natural_lookups(data))
            found = deserialized(data)
            if found.object.pk is None:  # the database assigns it
                self.flush()
                self._save_alone(found, table)
                return
            row = row_of(table, found, found.m2m_data or {})
        self.superseded.add(row.key)
        model, pk = row.key
        if pk in self.deletes.get(model, ()):
            if affects_others(model):
                self.flush()
            else:
                del self.deletes[model][pk]
        before = self.saves.pop(row.key, None)
        if before is not None:
            row.relations = {**before[1].relations, **row.relations}
        self.deferred.pop(row.key, None)
        if row.deferred is not None:
            self.deferred[row.key] = row.deferred
        self.saves[row.key] = table, row

    def _delete(self, table: Table, data: dict[str, Any]) -> None:
        if data.get("pk") is not None:
            key = table.key(data["pk"])
        else:
            self._flush_before_lookup(table.natural_lookups(data))
            found = deserialized(data)
            if found.object.pk is None:
                return  # there is no such object
            key = table.key(found.object.pk)
        if key in self.saves and key[0]._meta.parents:
            self.flush()  # otherwise the parents' rows would be left behind
        self.superseded.add(key)
        self.saves.pop(key, None)
        self.deferred.pop(key, None)
        self.written.pop(key, None)
        self.deletes.setdefault(key[0], {})[key[1]] = None
        if self.alone:
            self.flush()

    def _is_each(self, table: Table) -> bool:
        found = self.each.get(table.model)
        if found is None:
            found = self.each[table.model] = table.each
        return found

    def _save_alone(self, found: DeserializedObject, table: Table) -> None:
        related = dict(found.m2m_data or {})
        found.save()
        row = row_of(table, found, related)
        self.superseded.add(row.key)
        self.deferred.pop(row.key, None)
        if found.deferred_fields:
            self.deferred[row.key] = found
        self._note(table, row)
        self.saved_alone.add(row.key[0])

    def _note(self, table: Table, row: ObjectRow) -> None:
        if not dialect().checks_constraints_early:
            self.written[row.key] = row.references(table)

    def _flush_before_lookup(self, models: set[type[Model]]) -> None:
        """Write collected changes of these models, among which an object is about to be looked up."""
        if any(model in models for model, _ in self.saves) or any(model in models for model in self.deletes):
            self.flush()

    def flush(self) -> None:
        """Write collected changes: referenced objects first, then references; deletions the other way."""
        groups: dict[type[Model], tuple[Table, list[ObjectRow]]] = {}
        bare: dict[type[Model], tuple[Table, list[ObjectRow]]] = {}  # proxies apart
        for (model, _), (table, row) in self.saves.items():
            groups.setdefault(model, (table, []))[1].append(row)
            bare.setdefault(table.model, (table, []))[1].append(row)
        for table, rows in bare.values():
            table.fill(rows)
        for model in sorted(groups, key=place):
            table, rows = groups[model]
            sql.upsert(model, table.fields, [row.values for row in referenced_first(table, rows)])
        for table, rows in groups.values():
            if relations.refer_to(table, rows, self.deletes):
                raise OrderDependencyError(f"{table.model._meta.label} refers to an object deleted with it.")
            relations.write(table, rows)
        for model in sorted(self.deletes, key=place, reverse=True):
            if self.deletes[model]:
                delete_objects(model, list(self.deletes[model]), self.saves)
        sql.advance_sequences(list(groups))
        for table, row in self.saves.values():
            self._note(table, row)
        self.saves.clear()
        self.deletes.clear()
        self.size_bytes = 0
