"""Validation of records: their fields, their parents, and the targets of their foreign keys."""

from __future__ import annotations

from typing import Any

from django.core.exceptions import ObjectDoesNotExist
from django.db import IntegrityError
from django.db.models import ForeignKey
from morango.errors import MorangoDirtyParent
from morango.models.core import ForeignKeyReference, SyncableModel
from typing_extensions import override

from morango_celery.deserialization.context import BatchContext
from morango_celery.deserialization.dependency_graph import parent_names
from morango_celery.deserialization.early_looks import until_they_look
from morango_celery.deserialization.foreign_keys import StoreState
from morango_celery.deserialization.groups import (
    Group,
    GroupTransform,
    dirty_parent,
    missing_parent,
    target_failed,
)
from morango_celery.deserialization.parse import instantiate
from morango_celery.deserialization.rows import RowPlan, row_plan
from morango_celery.deserialization.task import DeserializeOutcome, DeserializeTask
from morango_celery.deserialization.traits import traits_of

References = list[tuple[str, ForeignKeyReference]]
"""Verbose name of each target, and Morango's description of the reference."""


class Validate(GroupTransform):
    """Operator that calls ``clean_fields`` with the model's overrides, and judges foreign keys by Morango's
    two rules."""

    def __init__(self, context: BatchContext) -> None:
        super().__init__(context)
        self._sound: set[tuple[type[SyncableModel], str, str]] = set()

    @override
    def update(self, group: Group) -> None:
        self._sound.clear()
        self._resolve_rows([carrier for carrier in group if carrier.row is not None])
        others = [
            carrier
            for carrier in group
            if (carrier.is_parsed or carrier.errors)
            and carrier.row is None
            and not carrier.store.deleted
            and carrier.has_model
        ]
        # Parents first: a child's verdict depends on its parent's
        until_they_look(others, self.context, self._judge_instance)

    def _judge_instance(self, carrier: DeserializeTask) -> None:
        traits = traits_of(carrier.model)
        if traits.in_tree:
            self._validate_in_tree(carrier)
        elif not carrier.has_errors:
            self._validate(carrier, is_overridden=traits.overrides_clean_fields)

    def _resolve_rows(self, carriers: Group) -> None:
        """Validate references of rows with valid values. Most need no look at each record."""
        for model in {carrier.model for carrier in carriers}:
            plan = row_plan(model)
            assert plan is not None
            rows = [carrier for carrier in carriers if carrier.model is model]
            unresolved: set[int] = set()
            for position, _, field in plan.references:
                values = {carrier.row.values[position] for carrier in rows if carrier.row} - {None}
                absent = {value for value in values if not self.context.is_valid_target(field, value)}
                if absent:
                    unresolved.update(
                        index
                        for index, carrier in enumerate(rows)
                        if carrier.row and carrier.row.values[position] in absent
                    )
            for index in unresolved:
                self._judge(rows[index], _references(rows[index], plan))

    def again(self, carrier: DeserializeTask) -> None:
        """Parse and judge a carrier that was put off, now that it is its turn."""
        carrier.put_off()
        instantiate(carrier, self.context)
        if carrier.app_model is not None:
            self.context.load_again(carrier)
        self._validate_in_tree(carrier)

    def _validate_in_tree(self, carrier: DeserializeTask) -> None:
        problem = self._parent_problem(carrier)
        if problem is not None:
            carrier.errors.clear()
            carrier.add_error(problem, is_retryable=isinstance(problem, MorangoDirtyParent))
        if carrier.has_errors:
            return
        assert carrier.app_model is not None
        try:
            with self.context.model_code.called():
                self.context.clean_in_tree(carrier.app_model)
        except ObjectDoesNotExist as error:
            target = self._deleted_target(carrier)
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

    def _deleted_target(self, carrier: DeserializeTask) -> StoreState | None:
        """Return the first deleted record that an instance refers to."""
        states = (
            self.context.state(getattr(carrier.app_model, field.attname))
            for field in traits_of(carrier.model).foreign_keys
        )
        return next((state for state in states if state is not None and state.deleted), None)

    def _validate(self, carrier: DeserializeTask, *, is_overridden: bool) -> None:
        assert carrier.app_model is not None
        try:
            with self.context.model_code.called():
                by_target = carrier.app_model.deferred_clean_fields(sync_filter=self.context.sync_filter)
        except Exception as error:
            if not self.context.model_code.is_records_fault(error):
                raise
            carrier.add_error(error, is_retryable=is_overridden)
            return
        references = [(name, reference) for name, found in by_target.items() for reference in found]
        if not all(self._is_sound(carrier, reference) for _, reference in references):
            self._judge(carrier, references)

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

    def _judge(self, carrier: DeserializeTask, references: References) -> None:
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
        """Judge one reference. Like Morango, note a deletion even beside a missing target.

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


def _references(carrier: DeserializeTask, plan: RowPlan) -> References:
    """Return a row's references as `deferred_clean_fields` returns those of an instance."""
    assert carrier.row is not None
    values = carrier.row.values
    return [
        (target_name, ForeignKeyReference(field.attname, values[plan.key_position], values[position]))
        for position, target_name, field in plan.references
        if values[position] is not None
    ]
