"""Number of statements of a batch, as it follows from the plan of its model.

Nothing is executed for it. Tests count the statements of batches of all their models, and compare.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from morango_celery.db.dialect import dialect
from morango_celery.deserialization.at_once import MAX_RECORDS
from morango_celery.deserialization.dependency_graph import Model, exclusive_models
from morango_celery.deserialization.foreign_keys import is_by_id
from morango_celery.deserialization.parse import fast_path
from morango_celery.deserialization.prefetch import target_table
from morango_celery.deserialization.rows import RowPlan
from morango_celery.deserialization.traits import Traits, WriteStrategy, traits_of
from morango_celery.deserialization.unique_conflicts import unique_fields

SAVEPOINT = 2
"""Statements that begin and end a savepoint."""

MEANING = (
    "Statements of one batch on this database, with records of this model alone. All are new and valid, and "
    "all that they refer to is there. Those of the ledger and the COMMIT are not counted."
)


SMALL = MAX_RECORDS
"""Records of a small batch: it is written at once."""


@dataclass(frozen=True)
class Statements:
    """Number of statements of a batch with records of one model; see `MEANING`."""

    small_batch: int
    """Statements of a batch that is written at once, for any number of records."""
    large_batch: int
    """Statements of a batch that is written group by group, for any number of records."""
    per_record: int
    """Further statements for each record of a small batch."""
    per_record_of_large_batch: int
    further: tuple[str, ...]
    """Sources of further statements, with a number that depends on the records or on the model's code."""

    @property
    def are_known(self) -> bool:
        """Return True if there are exactly so many; False if at least."""
        return not self.further


def statements_of(profile: str, model: Model) -> Statements:
    """Return the number of statements of a batch with records of a model."""
    traits, plan = traits_of(model), fast_path(model)
    is_individual = plan is None and traits.write_strategy is WriteStrategy.INDIVIDUAL
    fixed = _around(profile) + _look_ups(traits) + (0 if is_individual else 1)
    if plan is not None:
        fixed += len({column.model for column in plan.rules.targets})
        fixed += sum(rule.when is None for rule in plan.rules.of_existence)
    check = int(dialect().checks_constraints_early)
    large = fixed
    each = large_each = 0
    if is_individual:
        # The look at an edit, and the row
        large_each = each = 1 + sum(map(_writes, (model, *traits.parent_tables)))
        if not traits.exclusive:
            large_each += SAVEPOINT + check
    else:
        large += SAVEPOINT + check + (SAVEPOINT + 1) * len(unique_fields(model))
    return Statements(fixed + check, large, each, large_each, tuple(_further(traits, plan)))


def _writes(table: type[Any]) -> int:
    """Return the statements by which Django writes a new row of a table: an INSERT.

    Before that, an UPDATE finds none; not where a parent's row was inserted just now.
    """
    return 1 if table._meta.concrete_model._meta.parents else 2


def _around(profile: str) -> int:
    """Return the statements around all records: locks, a savepoint, the claim, and the mark as processed."""
    locks = 1 + int(dialect().has_advisory_locks and bool(exclusive_models(profile)))
    return locks + SAVEPOINT + 1 + int(not dialect().returns_updated_rows)


def _look_ups(traits: Traits) -> int:
    """Return the look-ups of references: one for all ids, and one for each key to other values."""
    targets = {target_table(key) for key in traits.foreign_keys if not key.remote_field.parent_link}
    return bool(targets) + sum(not is_by_id(target) for target in targets)


def _further(traits: Traits, plan: RowPlan | None) -> Iterator[str]:
    if plan is not None:
        if any(rule.when is not None for rule in plan.rules.of_existence):
            yield "one for the rows of its own table that a rule of the equivalent requires of some records"
        if traits.follows_relations:
            yield "those of its own code, for records that break a rule of the equivalent"
        return
    if traits.follows_relations:
        yield "each query of its own code, and one that writes the waiting rows before it"
        yield "one for each relation that its own code follows, for all records together"
    if traits.may_read_unwritten_rows:
        yield "two for each level of the tree"
