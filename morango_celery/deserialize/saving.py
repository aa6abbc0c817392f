"""The three ways to write a model's records; see `Way`."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from django.db import router, transaction
from django.db.models import Model
from morango.models.core import SyncableModel

from morango_celery.deserialize import sql
from morango_celery.deserialize.rows import STORED_AS, row_plan
from morango_celery.deserialize.task import DeserializeTask
from morango_celery.deserialize.traits import Way, traits_of
from morango_celery.deserialize.values import database_values, value_to_save


class OwnCodeError(Exception):
    """Models' own code refused some records; the rest of their group is untouched by them."""

    def __init__(self, refused: Sequence[DeserializeTask]) -> None:
        super().__init__(f"{len(refused)} records were refused by their model's own code")
        self.refused = refused


Rows = dict[str, Sequence[Any] | None]
"""The rows of one model by primary key, the last of two with the same; None for those in the Store."""


def write_together(carriers: Sequence[DeserializeTask]) -> set[str]:
    """Write bulk and captured records with one upsert per model.

    :returns: the ids that were left alone because of a local edit
    :raises OwnCodeError: code of a model raised; roll back, and write the others again
    :raises DatabaseError: at least one record can't be written; roll back
    """
    rows: dict[type[SyncableModel], Rows] = {}
    refused = []
    reads_stored_rows = sql.reads_stored_rows()
    for carrier in carriers:
        captured = rows.setdefault(carrier.model, {})
        if carrier.row is not None:
            if reads_stored_rows and carrier.row.is_stored:
                captured[carrier.store.id] = None
            else:
                captured[key_of(carrier)] = carrier.row.values
            continue
        app_model = carrier.app_model
        assert app_model is not None
        try:
            if traits_of(carrier.model).way is Way.CAPTURED:
                _capture(app_model, captured)
            else:
                captured[app_model.pk] = database_values(app_model, traits_of(carrier.model).fields)
        except sql.NO_RECORDS_FAULT:
            raise
        except Exception:  # it is raised again, and recorded, when the record is written alone
            refused.append(carrier)
    if refused:
        raise OwnCodeError(refused)
    left_alone: set[str] = set()
    for model, captured in rows.items():
        fields = traits_of(model).fields
        if stored := [key for key, values in captured.items() if values is None]:
            left_alone |= sql.upsert_stored(model, fields, STORED_AS, stored)
        if others := [values for values in captured.values() if values is not None]:
            left_alone |= sql.upsert(model, fields, others)
    return left_alone


def key_of(carrier: DeserializeTask) -> str:
    """The primary key of the carrier's row."""
    if carrier.row is not None:
        plan = row_plan(carrier.model)
        assert plan is not None
        key: str = carrier.row.values[plan.key_position]
        return key
    assert carrier.app_model is not None
    return str(carrier.app_model.pk)


def write_alone(carrier: DeserializeTask) -> bool:
    """Write one record by its model's own ``save()``, without signals.

    :returns: False when it was left alone because of a local edit
    :raises Exception: whatever the model or the database raises; roll back
    """
    app_model = carrier.app_model
    assert app_model is not None
    if not app_model.id:  # as Morango's save() does, but before the row is looked for
        app_model.id = app_model.calculate_uuid()
    dirty = carrier.model._base_manager.filter(pk=app_model.pk, _morango_dirty_bit=True)
    there = dirty.select_for_update().first()
    if there is not None and _synced_values(there) != _synced_values(app_model):
        return False
    _save(app_model, lambda **options: _save_base(app_model, **options))
    return True


def _capture(app_model: SyncableModel, rows: Rows) -> None:
    """Put the row into `rows` where the model's own ``save()`` would write it."""
    fields = traits_of(type(app_model)).fields

    def save_base(**options: Any) -> None:
        rows[app_model.pk] = database_values(app_model, fields)
        _mark_saved(app_model, options.get("using"))

    _save(app_model, save_base)


def _save(app_model: SyncableModel, save_base: Callable[..., None]) -> None:
    # On the instance, not on the class: other threads save instances of the same class.
    app_model.__dict__["save_base"] = save_base
    try:
        app_model.save(update_dirty_bit_to=False)
    finally:
        del app_model.__dict__["save_base"]


def _save_base(app_model: SyncableModel, **options: Any) -> None:
    """``Model.save_base`` less its signals, and with synced values taking precedence over
    ``auto_now``. (Morango swaps the receivers of the whole process instead.)"""
    cls = type(app_model)._meta.concrete_model
    using = options.get("using") or router.db_for_write(cls, instance=app_model)
    update_fields = options.get("update_fields")
    for field in cls._meta.concrete_fields:
        setattr(app_model, field.attname, value_to_save(app_model, field))
    with transaction.atomic(using=using, savepoint=False):
        inserted = app_model._save_parents(cls, using, update_fields)
        app_model._save_table(
            raw=True,
            cls=cls,
            force_insert=options.get("force_insert", False) or inserted,
            force_update=options.get("force_update", False),
            using=using,
            update_fields=update_fields,
        )
    _mark_saved(app_model, using)


def _mark_saved(app_model: Model, using: str | None) -> None:
    app_model._state.db = using or router.db_for_write(type(app_model), instance=app_model)
    app_model._state.adding = False


def _synced_values(app_model: SyncableModel) -> list[Any]:
    fields = traits_of(type(app_model)).fields
    return database_values(app_model, [f for f in fields if f.name != "_morango_dirty_bit"])
