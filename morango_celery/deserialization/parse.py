"""Parsing of claimed Store rows to app models or column values, and the order of a tree's records.

Any error of a record's own data or of its model's code becomes the error of that record.
"""

from __future__ import annotations

from typing import Any

from django.core.exceptions import ValidationError
from django.db.models import DEFERRED  # type: ignore[attr-defined]  # the stubs lack it
from django.db.models.signals import post_init, pre_init
from morango.models.core import SyncableModel
from typing_extensions import override

from morango_celery.deserialization.context import BatchContext
from morango_celery.deserialization.deferral import call_or_defer
from morango_celery.deserialization.dependency_graph import parents_first
from morango_celery.deserialization.groups import Group, GroupTransform, dirty_parent, to_save
from morango_celery.deserialization.identity import take_own_id
from morango_celery.deserialization.reasons import Kind, Reason
from morango_celery.deserialization.rows import RowPlan, row_plan, slow_path_reasons
from morango_celery.deserialization.task import DeserializeTask
from morango_celery.deserialization.traits import PARSING, overrides, traits_of
from morango_celery.django_compat import is_generated, receivers_of
from morango_celery.errors import MismatchedIdError, UnknownModelError
from morango_celery.reading.definitions import definition_of
from morango_celery.reading.jsontext import read_json
from morango_celery.stream import Transform


class RefuseUnknownModels(Transform[Group, Group]):
    """Operator that gives records an error if no installed app has their model."""

    @override
    def transform(self, item: Group) -> Group:
        for carrier in item:
            try:
                carrier.model  # noqa: B018  (the look-up raises)
            except UnknownModelError as error:
                carrier.add_error(error)
        return item


class OrderTree(GroupTransform):
    """Operator that puts parents before their children, and refuses cycles as Morango does."""

    @override
    def transform(self, item: Group) -> Group:
        if not any(traits_of(model).in_tree for model in {carrier.model for carrier in to_save(item)}):
            return item
        ordered, cyclic = parents_first(item)
        for carrier in cyclic:
            carrier.add_error(dirty_parent(), is_retryable=True)
        return ordered + cyclic


class Parse(GroupTransform):
    """Operator that parses JSON to an unsaved instance, by the model's own ``deserialize()``, or straight to
    a row."""

    @override
    def update(self, group: Group) -> None:
        parse(to_save(group), self.context)


def parse(carriers: Group, context: BatchContext) -> None:
    """Parse carriers that are to be saved."""
    of_model: dict[type[SyncableModel], Group] = {}
    for carrier in carriers:
        of_model.setdefault(carrier.model, []).append(carrier)
    for model, same in of_model.items():
        plan = fast_path(model)
        if plan is not None:
            refused: dict[int, ValidationError] = {}
            for carrier, row in zip(same, plan.rows([c.store for c in same], refused), strict=True):
                carrier.parsed = row
            for place, error in refused.items():
                same[place].add_error(error)
    others = [carrier for carrier in carriers if carrier.parsed is None and not carrier.has_errors]
    call_or_defer(others, context, lambda carrier: instantiate(carrier, context))


def fast_path(model: type[SyncableModel]) -> RowPlan | None:
    """Return the plan by which records of a model are parsed to rows; None if they are made instances."""
    return None if _observers(model) else row_plan(model)


def instance_reasons(model: type[SyncableModel]) -> tuple[Reason, ...]:
    """Return all reasons why records of a model are made instances; none if they are parsed to rows."""
    return (*slow_path_reasons(model), *_observers(model))


def _observers(model: type[SyncableModel]) -> list[Reason]:
    """Return a reason for each receiver that is told of the model's instances, and may change them."""
    return [
        Reason(
            Kind.RECEIVER,
            f"a receiver of {name} is told of each instance that is made",
            (definition_of(receiver),),
            name,
        )
        for name, signal in (("pre_init", pre_init), ("post_init", post_init))
        for receiver in receivers_of(signal, model)
    ]


def rebuild(carrier: DeserializeTask, context: BatchContext) -> SyncableModel | None:
    """Parse and clean a valid carrier again, after its model's code may have changed the instance.

    :returns: the new instance; None if there is none for an error
    """
    app_model = instantiate(carrier, context)
    if carrier.has_errors or app_model is None:
        return app_model
    context.attach(carrier.model, app_model, at_its_turn=True)
    try:
        with context.model_code.called():
            if traits_of(carrier.model).in_tree:
                context.clean_in_tree(app_model)
            else:
                app_model.deferred_clean_fields(sync_filter=context.sync_filter)
    except Exception as error:
        if not context.model_code.is_records_fault(error):
            raise
        carrier.add_error(error, is_retryable=True)
    return app_model


def instantiate(carrier: DeserializeTask, context: BatchContext) -> SyncableModel | None:
    """Parse a carrier by its model's own ``deserialize()``, or as that would.

    :returns: the instance; None if there is none for an error
    """
    carrier.parsed = None
    store, model = carrier.store, carrier.model
    try:
        data = read_json(store.serialized)
        with context.model_code.called():
            # A receiver of pre_init sees how the values are passed
            if overrides(model, *PARSING) or pre_init.has_listeners(model):
                app_model = model.deserialize(data, sync_filter=context.sync_filter)
            else:
                app_model = _deserialized(model, data)
        take_own_id(app_model, store)
        app_model._morango_source_id = store.source_id
        app_model._morango_partition = store.partition
        app_model._morango_dirty_bit = False
    except MismatchedIdError as error:
        carrier.add_error(error)
    except Exception as error:
        if not context.model_code.is_records_fault(error):
            raise
        carrier.add_error(error, is_retryable=traits_of(carrier.model).overrides_deserialize)
    else:
        carrier.set_app_model(app_model)
        return app_model
    return None


def _deserialized(model: type[SyncableModel], data: Any) -> SyncableModel:
    """Return an instance as Morango's ``deserialize()`` does. That passes values by name, and takes twice as
    long."""
    values = []
    for field in model._meta.concrete_fields:
        name = field.attname
        if name not in data:
            values.append(DEFERRED if is_generated(field) else field.get_default())
        elif getattr(field, "morango_serialize_to_string", False):
            values.append(field.to_python(data[name]))
        else:
            values.append(data[name])
    return model(*values)


class LoadForeignKeys(GroupTransform):
    """Operator that looks up the foreign keys of the whole group."""

    @override
    def update(self, group: Group) -> None:
        self.context.load(group)
