"""Three ways to write a model's records, one for each `WriteStrategy`."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from django.db import DatabaseError, router
from django.db.models import Model
from django.db.models.signals import post_save, pre_save
from morango.models.core import Store, SyncableModel

from morango_celery.db.errors import INFRASTRUCTURE_ERRORS
from morango_celery.deserialization.app_rows import reads_stored_rows
from morango_celery.deserialization.code_edits import current
from morango_celery.deserialization.context import BatchContext
from morango_celery.deserialization.identity import require_own_id
from morango_celery.deserialization.issuer import MODELS_CODE, OUR_STATEMENT, is_systemic
from morango_celery.deserialization.muting import muted
from morango_celery.deserialization.parse import rebuild
from morango_celery.deserialization.parsed import Instance
from morango_celery.deserialization.rows import Row
from morango_celery.deserialization.task import DeserializeTask
from morango_celery.deserialization.traits import WriteStrategy, traits_of
from morango_celery.deserialization.values import database_values, value_to_save
from morango_celery.deserialization.waiting_rows import NotWrittenError, WaitingRows
from morango_celery.django_compat import write_row


class ModelCodeError(Exception):
    """Rejection of some records by their models' own code. The rest of their group is untouched by them."""

    def __init__(self, rejected: Sequence[DeserializeTask]) -> None:
        super().__init__(f"{len(rejected)} records were rejected by their model's own code")
        self.rejected = rejected


def write_together(
    carriers: Sequence[DeserializeTask],
    context: BatchContext,
    revalidate: Callable[[DeserializeTask], object],
) -> set[str]:
    """Write bulk and captured records with one upsert per model; more where their code looks at each other.

    As by Morango, ``pre_save`` and ``post_save`` are muted for everything that models' own code saves
    meanwhile.

    :param revalidate: called with each deferred carrier, when its code can see all records before it
    :returns: the ids of rows that were skipped because of a local edit
    :raises ModelCodeError: code of a model raised; roll back, and write the others again
    :raises DatabaseError: at least one record can't be written; roll back
    """
    ordered = _behind_required_rows(list(carriers), context)
    skipped_ids = _write_in_order(ordered, context, revalidate)
    if lost := context.required_rows.lost(ordered, skipped_ids):
        raise ModelCodeError(lost)
    return skipped_ids


def _behind_required_rows(carriers: list[DeserializeTask], context: BatchContext) -> list[DeserializeTask]:
    """Return carriers in an order in which each comes after the rows that it requires.

    A carrier of which that isn't certain becomes an instance, and keeps its place: its model's own code
    looks for the row.
    """
    ordered, uncertain = context.required_rows.in_order(carriers)
    for carrier in uncertain:
        rebuild(carrier, context)
    return context.required_rows.in_order(carriers)[0] if uncertain else ordered


@muted(pre_save, post_save)
def _write_in_order(
    carriers: Sequence[DeserializeTask],
    context: BatchContext,
    revalidate: Callable[[DeserializeTask], object],
) -> set[str]:
    rows = WaitingRows(context.upserted)
    rejected: dict[int, DeserializeTask] = {}
    reads_stored = reads_stored_rows()
    expected = context.expects_rows

    def before_statement(statement: str) -> None:
        context.model_code.refuse_update(carrier.model, statement)
        rows.before_statement(statement)
        context.before_statement(statement)

    strategies = {model: traits_of(model).write_strategy for model in {carrier.model for carrier in carriers}}
    try:
        with context.model_code.observed_by(before_statement):
            for carrier in carriers:
                if id(carrier.parent) in rejected:
                    rejected[id(carrier)] = carrier
                elif isinstance(row := carrier.parsed, Row):
                    is_stored = reads_stored and row.is_stored
                    rows.of(carrier.model)[carrier.store.id] = None if is_stored else row.values
                elif not _put(carrier, strategies[carrier.model], rows, revalidate):
                    rejected[id(carrier)] = carrier
                if expected:
                    context.written(carrier)
    except NotWrittenError as error:
        raise error.error from error.error.__cause__  # which has the database's code
    if rejected:
        raise ModelCodeError(list(rejected.values()))
    rows.write()
    return rows.skipped_ids


def _put(
    carrier: DeserializeTask,
    strategy: WriteStrategy,
    rows: WaitingRows,
    revalidate: Callable[[DeserializeTask], object],
) -> bool:
    """Let the row of a carrier wait that is an instance.

    :returns: False if it can't be: that is raised again, and recorded, when the record is written alone
    """
    if carrier.is_deferred:
        revalidate(carrier)
        if carrier.errors:
            return False
        if carrier.propagated_deletion is not None:
            return True
    if carrier.errors or not isinstance(carrier.parsed, Instance):
        return False
    model, app_model = carrier.model, carrier.parsed.app_model
    try:
        if strategy is WriteStrategy.CAPTURED_SAVE:
            _capture(app_model, carrier.store, rows)
        else:
            require_own_id(app_model, carrier.store)
            rows.of(model)[carrier.store.id] = database_values(app_model, traits_of(model).fields)
    except INFRASTRUCTURE_ERRORS:
        raise
    except Exception:
        return False
    return True


@muted(pre_save, post_save)
def write_alone(carrier: DeserializeTask, app_model: SyncableModel, context: BatchContext) -> bool:
    """Write one record by its model's own ``save()``, with the same signals muted as by `write_together`.

    :returns: False when it was skipped because of a local edit
    :raises Exception: anything that the model or the database raises; roll back
    """
    dirty = carrier.model._base_manager.filter(pk=app_model.pk, _morango_dirty_bit=True)
    there = dirty.select_for_update().first()
    if there is not None and _synced_values(there) != _synced_values(app_model):
        is_by_code = bool(current().made_by_code(carrier.model, [there.pk]))
        if not is_by_code:
            return False
    rejected: list[DatabaseError] = []

    def before_statement(statement: str) -> None:
        context.model_code.refuse_update(carrier.model, statement)
        context.before_statement(statement)

    def save_base(**options: Any) -> None:
        try:
            with context.model_code.unobserved(), OUR_STATEMENT:
                require_own_id(app_model, carrier.store)
                _save_base(app_model, **options)
        except DatabaseError as error:
            if is_systemic(error):
                rejected.append(error)
            raise

    try:
        with context.model_code.observed_by(before_statement):
            _save(app_model, save_base)
    except Exception:
        if not rejected:
            raise
    if rejected:  # even if the model has caught it
        raise rejected[0]
    return True


def _capture(app_model: SyncableModel, store: Store, rows: WaitingRows) -> None:
    """Put the row into `rows` where the model's own ``save()`` would write it."""
    fields = traits_of(type(app_model)).fields

    def save_base(**options: Any) -> None:
        require_own_id(app_model, store)
        rows.of(type(app_model))[store.id] = database_values(app_model, fields)
        _mark_saved(app_model, options.get("using"))

    _save(app_model, save_base)


def _save(app_model: SyncableModel, save_base: Callable[..., None]) -> None:
    # On the instance, not on the class: other threads save instances of the same class.
    app_model.__dict__["save_base"] = save_base
    try:
        with MODELS_CODE:
            app_model.save(update_dirty_bit_to=False)
    finally:
        del app_model.__dict__["save_base"]


def _save_base(app_model: SyncableModel, **options: Any) -> None:
    """Write a row as ``Model.save_base`` does, less its signals, and with synced values taking precedence
    over ``auto_now``. (Morango swaps the receivers of the whole process instead.)"""
    cls = type(app_model)._meta.concrete_model
    using = options.get("using") or router.db_for_write(cls, instance=app_model)
    for field in traits_of(cls).fields:
        setattr(app_model, field.attname, value_to_save(app_model, field))
    write_row(
        app_model,
        using=using,
        force_insert=options.get("force_insert", False),
        force_update=options.get("force_update", False),
        update_fields=options.get("update_fields"),
    )
    _mark_saved(app_model, using)


def _mark_saved(app_model: Model, using: str | None) -> None:
    app_model._state.db = using or router.db_for_write(type(app_model), instance=app_model)
    app_model._state.adding = False


def _synced_values(app_model: SyncableModel) -> list[Any]:
    fields = traits_of(type(app_model)).fields
    return database_values(app_model, [f for f in fields if f.name != "_morango_dirty_bit"])
