"""Rules of declared equivalents about other rows than the records' own."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import chain
from typing import Any, TypeAlias

from django.db.models import Model
from morango.models.core import SyncableModel
from typing_extensions import override

from morango_celery.deserialization.context import BatchContext
from morango_celery.deserialization.groups import Group, GroupTransform
from morango_celery.deserialization.parse import instantiate
from morango_celery.deserialization.row_rules import Certain, Rules, TableColumn, certain_text
from morango_celery.deserialization.rows import Row
from morango_celery.deserialization.task import DeserializeTask
from morango_celery.equivalents import NotFastPath

Rows: TypeAlias = "Mapping[DeserializeTask, Sequence[Any]]"
"""Values of rows of one model, by their carriers."""


class RequireTargets(GroupTransform):
    """Operator that leaves a record to its model's own code, if what it refers to breaks a rule.

    Cost: at most one statement for each table that rules look at.
    """

    @override
    def update(self, group: Group) -> None:
        require_targets(group, self.context)


def require_targets(group: Group, context: BatchContext) -> None:
    """Leave carriers to their models' own code that break a rule about the rows that they refer to, and note
    the rows that others require.

    Cost: as `RequireTargets`.
    """
    of_model: dict[type[SyncableModel], dict[DeserializeTask, Row]] = {}
    for carrier in group:
        if isinstance(carrier.parsed, Row):
            of_model.setdefault(carrier.model, {})[carrier] = carrier.parsed
    broken: set[DeserializeTask] = set()
    for parsed in of_model.values():
        rules = next(iter(parsed.values())).plan.rules
        if rules.of_targets or rules.of_existence:
            broken |= _breaking(rules, {carrier: row.values for carrier, row in parsed.items()}, context)
    carriers = [carrier for carrier in group if carrier in broken]
    for carrier in carriers:
        instantiate(carrier, context)
    context.load(carriers)


def _breaking(rules: Rules, rows: Rows, context: BatchContext) -> set[DeserializeTask]:
    """Return the carriers that break a rule, or may, and note the rows that others require."""
    certain = _certain(rules, rows, context)
    broken = set(chain.from_iterable(rule.breaking(rows, certain) for rule in rules.of_targets))
    for rule in rules.of_existence:
        for carrier, values in rows.items():
            try:
                key = rule.key(values, certain)
            except NotFastPath:
                broken.add(carrier)
            else:
                if key is not None:
                    context.required_rows.require(carrier, key)
    return broken


def _certain(rules: Rules, rows: Rows, context: BatchContext) -> Certain:
    """Return the texts in columns of the rows that carriers refer to."""
    columns: dict[type[Model], list[TableColumn]] = {}
    positions: dict[type[Model], set[int]] = {}
    for column, of_column in rules.targets.items():
        columns.setdefault(column.model, []).append(column)
        positions.setdefault(column.model, set()).update(of_column)
    found: dict[TableColumn, Mapping[str, str]] = {}
    for model, of_model in columns.items():
        ids = {row[position] for row in rows.values() for position in positions[model]} - {None}
        found.update(_certain_of(ids, of_model, context))
    return found


def _certain_of(ids: set[str], columns: list[TableColumn], context: BatchContext) -> Certain:
    """Return the texts in columns of one table, by ids of rows.

    A row that this batch brings has another value in the database until it is written, and keeps that if it
    can't be.
    """
    arriving = {
        target_id: carrier.parsed
        for target_id in ids
        if (carrier := context.carriers.get(target_id)) is not None and carrier.parsed is not None
    }
    sought = ids - (arriving.keys() & context.fk_cache.upserted_ids)
    stored = context.fk_cache.columns(columns, sought)
    certain: dict[TableColumn, Mapping[str, str]] = {}
    for column in columns:
        texts: dict[str, str] = {}
        for target_id in ids:
            values: list[Any] = []
            if target_id in arriving:
                values.append(arriving[target_id].column_value(column.attname))
            if target_id in sought and target_id in stored[column]:
                values.append(stored[column][target_id])
            if (text := certain_text(values)) is not None:
                texts[target_id] = text
        certain[column] = texts
    return certain
