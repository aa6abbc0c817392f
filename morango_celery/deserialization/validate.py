"""Validation of records: their fields, their parents, and the targets of their foreign keys."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from django.core.exceptions import ObjectDoesNotExist
from django.db import IntegrityError
from django.db.models import ForeignKey
from morango.errors import MorangoDirtyParent
from morango.models.core import ForeignKeyReference, SyncableModel
from typing_extensions import override

from morango_celery.deserialization.context import BatchContext
from morango_celery.deserialization.deferral import call_or_defer
from morango_celery.deserialization.dependency_graph import parent_names
from morango_celery.deserialization.foreign_keys import StoreState
from morango_celery.deserialization.groups import (
    Group,
    GroupTransform,
    dirty_parent,
    missing_parent,
    target_failed,
)
from morango_celery.deserialization.outcome import DeserializeOutcome
from morango_celery.deserialization.parse import instantiate
from morango_celery.deserialization.parsed import Instance
from morango_celery.deserialization.rows import Row
from morango_celery.deserialization.task import DeserializeTask
from morango_celery.deserialization.traits import traits_of

References = list[tuple[str, ForeignKeyReference]]
"""Verbose name of each target, and Morango's description of the reference."""


class Validate(GroupTransform):
    """Operator that calls ``clean_fields`` with the model's overrides, and checks foreign keys by Morango's
    two rules."""

    def __init__(self, context: BatchContext) -> None:
        super().__init__(context)
        self._sound: set[tuple[type[SyncableModel], str, str]] = set()

    @override
    def update(self, group: Group) -> None:
        self._sound.clear()
        rows: dict[type[SyncableModel], list[tuple[DeserializeTask, Row]]] = {}
        others: Group = []
        for carrier in group:
            parsed = carrier.parsed
            if isinstance(parsed, Row):
                rows.setdefault(carrier.model, []).append((carrier, parsed))
            elif (parsed is not None or carrier.errors) and not carrier.store.deleted and carrier.has_model:
                others.append(carrier)
        for same in rows.values():
            self._resolve_rows(same)
        # Parents first: a child's verdict depends on its parent's
        call_or_defer(others, self.context, self._validate_carrier)

    def _validate_carrier(self, carrier: DeserializeTask) -> None:
        traits = traits_of(carrier.model)
        if traits.in_tree:
            self._validate_in_tree(carrier)
        elif isinstance(carrier.parsed, Instance) and not carrier.has_errors:
            self._validate(carrier, carrier.parsed.app_model, is_overridden=traits.overrides_clean_fields)

    def _resolve_rows(self, rows: Sequence[tuple[DeserializeTask, Row]]) -> None:
        """Validate references of one model's rows with valid values. Most need no look at each record."""
        unresolved: set[int] = set()
        for position, _, field in rows[0][1].plan.references:
            values = {row.values[position] for _, row in rows} - {None}
            absent = {value for value in values if not self.context.is_valid_target(field, value)}
            if absent:
                unresolved.update(
                    index for index, (_, row) in enumerate(rows) if row.values[position] in absent
                )
        for index in unresolved:
            carrier, row = rows[index]
            self._check_references(carrier, _references(row))

    def parse_and_validate(self, carrier: DeserializeTask) -> SyncableModel | None:
        """Parse and validate a deferred carrier, now that it is its turn.

        :returns: its instance; None if there is none for an error
        """
        carrier.defer()
        app_model = instantiate(carrier, self.context)
        if app_model is not None:
            self.context.reload(carrier, app_model)
        self._validate_in_tree(carrier)
        return app_model

    def _validate_in_tree(self, carrier: DeserializeTask) -> None:
        problem = self._parent_problem(carrier)
        if problem is not None:
            carrier.errors.clear()
            carrier.add_error(problem, is_retryable=isinstance(problem, MorangoDirtyParent))
        if isinstance(carrier.parsed, Instance) and not carrier.has_errors:
            self._clean_in_tree(carrier, carrier.parsed.app_model)

    def _clean_in_tree(self, carrier: DeserializeTask, app_model: SyncableModel) -> None:
        try:
            with self.context.model_code.called():
                self.context.clean_in_tree(app_model)
        except ObjectDoesNotExist as error:
            target = self._deleted_target(carrier.model, app_model)
            if target is None:
                carrier.add_error(error, is_retryable=True)
            else:
                carrier.set_propagated_deletion(target.hard_deleted)
        except Exception as error:
            if not self.context.model_code.is_records_fault(error):
                raise
            carrier.add_error(error, is_retryable=True)

    def _parent_problem(self, carrier: DeserializeTask) -> Exception | None:
        parent_id: str = carrier.store._self_ref_fk
        if not parent_id:
            return None
        parent = self.context.carriers.get(parent_id)
        if parent is not None:
            return dirty_parent() if parent.has_errors else None
        state = self.context.state(parent_id)
        if self.context.edited_locally(parent_id):
            return dirty_parent() if self.context.failed_in_this_run(parent_id) else None
        if state is not None and self._counts_as_parent(carrier, state):
            return dirty_parent() if state.dirty else None
        tree_key = traits_of(carrier.model).tree_key
        if tree_key is not None and self.context.row_exists(tree_key, parent_id):
            return None
        return missing_parent()

    def _counts_as_parent(self, carrier: DeserializeTask, parent: StoreState) -> bool:
        return (
            parent.model_name in parent_names(carrier.model)
            and self.context.in_filter(parent)
            and not (self.context.skip_erroring and parent.in_error)
        )

    def _deleted_target(self, model: type[SyncableModel], app_model: SyncableModel) -> StoreState | None:
        """Return the first deleted record that an instance refers to."""
        states = (
            self.context.state(getattr(app_model, field.attname)) for field in traits_of(model).foreign_keys
        )
        return next((state for state in states if state is not None and state.deleted), None)

    def _validate(self, carrier: DeserializeTask, app_model: SyncableModel, *, is_overridden: bool) -> None:
        try:
            with self.context.model_code.called():
                by_target = app_model.deferred_clean_fields(sync_filter=self.context.sync_filter)
        except Exception as error:
            if not self.context.model_code.is_records_fault(error):
                raise
            carrier.add_error(error, is_retryable=is_overridden)
            return
        references = [(name, reference) for name, found in by_target.items() for reference in found]
        if not all(self._is_sound(carrier, reference) for _, reference in references):
            self._check_references(carrier, references)

    def _is_sound(self, carrier: DeserializeTask, reference: ForeignKeyReference) -> bool:
        """Return True if a reference is valid at once. The answer is kept for all records that have the same
        one."""
        if not isinstance(reference.to_pk, str):
            return False
        known = (carrier.model, reference.from_field, reference.to_pk)
        if known in self._sound:
            return True
        field = _foreign_key(carrier.model, reference.from_field)
        is_sound = self.context.is_valid_target(field, reference.to_pk)
        if (
            is_sound and reference.to_pk not in self.context.carriers
        ):  # errors of carriers are yet to be found
            self._sound.add(known)
        return is_sound

    def _check_references(self, carrier: DeserializeTask, references: References) -> None:
        for position, (target_name, reference) in enumerate(references):
            if self.context.failed_in_this_run(reference.to_pk):
                carrier.add_error(target_failed(target_name, reference.to_pk), is_retryable=True)
                # By then Morango has put the targets before this one aside for its bulk checks.
                references = [r for r in references[:position] if r[0] != target_name]
                break
        lost = [
            (name, reference.to_pk)
            for name, reference in references
            if not self._resolve(carrier, name, reference)
        ]
        if lost and not carrier.has_errors and carrier.propagated_deletion is None:
            carrier.add_error(target_failed(*lost[0]), is_retryable=True)

    def _resolve(self, carrier: DeserializeTask, target_name: str, reference: ForeignKeyReference) -> bool:
        """Check one reference. Like Morango, note a deletion even beside a missing target.

        :returns: False where the Store has the target and the app table hasn't, for want of deserializing
        """
        store_id = reference.to_pk
        state = self.context.state(store_id)
        if state is not None and state.is_deleted and not self.context.edited_locally(store_id):
            carrier.set_propagated_deletion(state.hard_deleted)
            return True
        field = _foreign_key(carrier.model, reference.from_field)
        if self.context.row_exists(field, store_id) or self._is_being_saved(store_id):
            return True
        if state is None:
            carrier.errors.clear()
            carrier.add_error(
                IntegrityError(
                    f"{carrier.model.__name__}.{reference.from_field} references non-existent"
                    f" {target_name} instance with id '{store_id}'"
                )
            )
        elif (noted := self.context.noted_deletion(store_id)) is not None:
            carrier.set_propagated_deletion(noted is DeserializeOutcome.PROPAGATE_HARD_DELETE)
        else:
            return False
        return True

    def _is_being_saved(self, store_id: object) -> bool:
        """Models that refer to each other are written together; the database checks afterwards."""
        carrier = self.context.carriers.get(store_id) if isinstance(store_id, str) else None
        return carrier is not None and carrier.is_parsed and carrier.outcome is DeserializeOutcome.SAVE


def _foreign_key(model: type[SyncableModel], attname: str) -> ForeignKey[Any, Any]:
    return next(field for field in traits_of(model).foreign_keys if field.attname == attname)


def _references(row: Row) -> References:
    """Return a row's references as `deferred_clean_fields` returns those of an instance."""
    plan, values = row.plan, row.values
    return [
        (target_name, ForeignKeyReference(field.attname, values[plan.key_position], values[position]))
        for position, target_name, field in plan.references
        if values[position] is not None
    ]
