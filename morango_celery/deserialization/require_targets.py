"""Rules of declared equivalents about the rows that records refer to."""

from __future__ import annotations

from collections.abc import Mapping

from morango.models.core import SyncableModel
from typing_extensions import override

from morango_celery.deserialization.context import BatchContext
from morango_celery.deserialization.groups import Group, GroupTransform
from morango_celery.deserialization.parse import instantiate
from morango_celery.deserialization.rows import Row, TargetRule
from morango_celery.deserialization.task import DeserializeTask


class RequireTargets(GroupTransform):
    """Operator that leaves a record to its model's own code, if what it refers to breaks a rule.

    Cost: at most one statement per rule and group.
    """

    @override
    def update(self, group: Group) -> None:
        rows: dict[type[SyncableModel], dict[DeserializeTask, Row]] = {}
        for carrier in group:
            if isinstance(carrier.parsed, Row) and carrier.parsed.plan.target_rules:
                rows.setdefault(carrier.model, {})[carrier] = carrier.parsed
        broken: set[DeserializeTask] = set()
        for of_model in rows.values():
            for rule in next(iter(of_model.values())).plan.target_rules:
                broken |= _breaking(rule, of_model, self.context)
        carriers = [carrier for carrier in group if carrier in broken]
        for carrier in carriers:
            instantiate(carrier, self.context)
        self.context.load(carriers)


def _breaking(
    rule: TargetRule, rows: Mapping[DeserializeTask, Row], context: BatchContext
) -> set[DeserializeTask]:
    """Return the carriers that break a rule, or may: the value of their target's column isn't certain."""
    targets = {row.values[rule.key_position] for row in rows.values()} - {None}
    arriving = {
        target: carrier.parsed
        for target in targets
        if (carrier := context.carriers.get(target)) is not None and carrier.parsed is not None
    }
    sought = targets - (arriving.keys() & context.fk_cache.upserted_ids)
    stored = context.fk_cache.id_column(rule.target, rule.attname, sought) if sought else {}
    certain = {}
    for target in targets:
        found = {arriving[target].column_value(rule.attname)} if target in arriving else set()
        if target in sought and stored[target] is not None:
            found.add(stored[target])
        if len(found) == 1:
            certain[target] = found.pop()
    return {
        carrier
        for carrier, row in rows.items()
        if row.values[rule.position] is None
        or certain.get(row.values[rule.key_position]) != row.values[rule.position]
    }
