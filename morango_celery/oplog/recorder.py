"""Recorder of changes of configured models: from Django's signals to lines in the outbox.

A line is inserted in the transaction of its change. So it is rolled back with it, and survives any failure
between the commit and the file. `logfile` writes it to the file.
"""

from __future__ import annotations

import datetime
import logging
import time
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

from django.apps import apps
from django.core import serializers
from django.core.serializers.json import DjangoJSONEncoder
from django.db import DEFAULT_DB_ALIAS, DatabaseError, InterfaceError, connection, transaction
from django.db.models import Model
from django.db.models.signals import m2m_changed, post_delete, post_save, pre_delete
from typing_extensions import override

from morango_celery.deserialization.locks import take_write_lock
from morango_celery.oplog.conf import problems, settings
from morango_celery.oplog.lines import Operation, format_line
from morango_celery.oplog.logfile import CHUNK_BYTES, write_out
from morango_celery.oplog.meta import AnyRelation, all_fields, concrete, named, rows
from morango_celery.oplog.models import OutboxChange
from morango_celery.oplog.stored import (
    CHUNK_OBJECTS,
    is_locked_by_saving,
    lock,
    lock_for_deletion,
    stored,
)
from morango_celery.oplog.suppression import is_recording_suppressed
from morango_celery.printable import make_printable
from morango_celery.stream import chunked_by_weight

logger = logging.getLogger(__name__)

_UID = "morango_celery.oplog.{}"
_CLEARED = "_oplog_cleared"


class Encoder(DjangoJSONEncoder):
    """Django's encoder, with times in full: Django's own cuts them off after milliseconds."""

    @override
    def default(self, o: Any) -> Any:
        if isinstance(o, datetime.datetime):
            text = o.isoformat()
            return text.removesuffix("+00:00") + "Z" if text.endswith("+00:00") else text
        if isinstance(o, datetime.time) and o.tzinfo is None:
            return o.isoformat()
        return super().default(o)


def connect() -> None:
    """Listen to the changes of the models that ``MODELS`` names. Safe to call again."""
    if problems():
        return  # a system check reports them
    recorded = recorded_models()
    for model in apps.get_models():
        if concrete(model) not in recorded:
            continue
        post_save.connect(_saved, sender=model, dispatch_uid=_UID.format("saved"))
        post_delete.connect(_deleted, sender=model, dispatch_uid=_UID.format("deleted"))
    relations = [relation for model in recorded for relation in recorded_relations(model)]
    for relation in relations:
        through: Any = relation.remote_field.through
        m2m_changed.connect(_relations_changed, sender=through, dispatch_uid=_UID.format("m2m"))
    targets = {concrete(relation.remote_field.model) for relation in relations}
    for model in apps.get_models():
        if concrete(model) in targets:
            pre_delete.connect(_target_goes, sender=model, dispatch_uid=_UID.format("target goes"))
            post_delete.connect(_target_went, sender=model, dispatch_uid=_UID.format("target went"))


def recorded_models() -> set[type[Model]]:
    """Return the models that ``MODELS`` names, and their parents with tables of their own."""
    return named(settings.MODELS)


def recorded_relations(model: type[Model]) -> list[AnyRelation]:
    """Return the many-to-many fields of a model's own with values in its objects' lines."""
    relations = concrete(model)._meta.local_many_to_many
    return [relation for relation in relations if _through(relation)._meta.auto_created]


def record(operation: Operation, instances: Iterable[Model]) -> None:
    """Record changes that Django sends no signal for, such as those of ``bulk_create`` and ``update``.

    Call it in the transaction of the change. Saved objects are locked and read again.
    """
    if operation is Operation.DELETE:
        _insert(_line(operation, instance) for instance in instances)
        return
    keys: dict[type[Model], list[Any]] = {}
    for instance in instances:
        keys.setdefault(type(instance), []).append(instance.pk)
    for model, of_model in keys.items():
        record_stored(model, of_model)


def record_stored(model: type[Model], keys: Iterable[Any]) -> None:
    """Record objects as they are stored, and keep others from changing them until the transaction ends."""
    with transaction.atomic(savepoint=False):
        take_write_lock()
        _insert(_line(Operation.SAVE, instance) for instance in stored(model, keys))


def _insert(texts: Iterable[str]) -> None:
    changes = map(OutboxChange.of, texts)
    sized = ((change, change.size_bytes) for change in changes)
    for lines in chunked_by_weight(sized, CHUNK_OBJECTS, CHUNK_BYTES):
        if len(lines) == 1:
            lines[0].save(force_insert=True)
        else:
            OutboxChange.objects.bulk_create(lines)
        waiting = connection.run_on_commit
        if not (waiting and waiting[-1][1] is _write_out):
            transaction.on_commit(_write_out)


def _write_out() -> None:
    """Write the log, and only log a failure: the change is committed, and its author isn't to blame."""
    try:
        write_out()
    except (OSError, DatabaseError, InterfaceError) as error:
        make_printable(error)
        logger.exception(
            "The log can't be written at the moment. Nothing is lost: the changes are in the database, and "
            "are written with the next one, or by `manage.py record_objects`."
        )


def _saved(
    instance: Model, raw: bool, using: str, update_fields: frozenset[str] | None, **kwargs: Any
) -> None:
    if raw or _is_not_ours(using):
        return
    has_all_values = not (update_fields or instance.get_deferred_fields() or _has_expressions(instance))
    # Without a transaction the row is free again, and others may have saved it since
    if has_all_values and connection.in_atomic_block and is_locked_by_saving(type(instance)):
        _insert([_line(Operation.SAVE, instance)])
    else:
        record_stored(type(instance), [instance.pk])


def _deleted(instance: Model, using: str, **kwargs: Any) -> None:
    if not _is_not_ours(using):
        record(Operation.DELETE, [instance])


def _relations_changed(
    instance: Model,
    action: str,
    reverse: bool,
    model: type[Model],
    pk_set: set[Any] | None,
    using: str,
    sender: type[Model],
    **kwargs: Any,
) -> None:
    """Record the object that has the many-to-many field; both objects, if the field is symmetrical."""
    if _is_not_ours(using):
        return
    owner: Any = model if reverse else type(instance)
    (relation,) = (relation for relation in owner._meta.many_to_many if _through(relation) is sender)
    symmetrical = relation.remote_field.symmetrical
    if action == "pre_clear" and (reverse or symmetrical):
        lock_for_deletion(instance)
        instance.__dict__[_CLEARED] = list(_related(relation, instance))
    if not action.startswith("post_"):
        return
    others = instance.__dict__.pop(_CLEARED, ()) if action == "post_clear" else pk_set or ()
    if reverse:
        record_stored(model, others)
    elif symmetrical:
        both = stored(type(instance), [instance.pk, *others])
        _insert([_line(Operation.SAVE, one) for one in list(both) if one.pk == instance.pk])
    else:
        record_stored(type(instance), [instance.pk])


def _target_goes(instance: Model, using: str, **kwargs: Any) -> None:
    """Record the many-to-many values that go with a deleted object: Django sends no signal for these.

    Their owners are locked: otherwise one could be saved, and recorded with such a value, behind the
    deletion's line.
    """
    if _is_not_ours(using):
        return
    lock_for_deletion(instance)
    for relation in _relations_to(instance):
        lock(relation.model, _related(relation, instance))
    if not _is_recorded(instance):
        instance.__dict__[_CLEARED] = {
            relation: list(_related(relation, instance)) for relation in _relations_to(instance)
        }


def _target_went(instance: Model, using: str, **kwargs: Any) -> None:
    """Record the objects that had an unrecorded, deleted object among their many-to-many values."""
    if _is_not_ours(using) or _is_recorded(instance):
        return
    for relation, keys in instance.__dict__.pop(_CLEARED).items():
        record_stored(relation.model, keys)


def _relations_to(instance: Model) -> Iterator[AnyRelation]:
    for model in recorded_models():
        for relation in recorded_relations(model):
            if concrete(relation.remote_field.model) is concrete(type(instance)):
                yield relation


def _is_recorded(instance: Model) -> bool:
    return concrete(type(instance)) in recorded_models()


def _related(relation: Any, instance: Model) -> Any:
    """Return keys of the objects with `instance` among the values of their many-to-many field."""
    theirs, ours = relation.m2m_reverse_field_name(), relation.m2m_field_name()
    return rows(_through(relation)).filter(**{theirs: instance.pk}).values_list(ours, flat=True)


def _through(relation: AnyRelation) -> Any:
    return relation.remote_field.through


def _is_not_ours(using: str) -> bool:
    """Return True for other databases, of which the outbox is no part, and while recording is suppressed."""
    return using != DEFAULT_DB_ALIAS or is_recording_suppressed()


def _has_expressions(instance: Model) -> bool:
    return any(hasattr(value, "resolve_expression") for value in instance.__dict__.values())


def _line(operation: Operation, instance: Model) -> str:
    parts = [instance] if operation is Operation.DELETE else list(_parts(instance))
    try:
        objects = _serialized(parts, operation)
    except Exception:  # assigned values may be of any type; stored ones can be serialized
        if operation is Operation.DELETE:
            raise
        objects = _serialized(list(_parts(rows(type(instance)).get(pk=instance.pk))), operation)
    return format_line(time.time(), operation, objects)


def _serialized(parts: Sequence[Model], operation: Operation) -> str:
    natural = settings.NATURAL_KEYS
    options: dict[str, Any] = {"use_natural_foreign_keys": natural, "use_natural_primary_keys": natural}
    if operation is Operation.DELETE:  # the many-to-many values are gone
        options["fields"] = [field.name for field in parts[0]._meta.local_fields]
    text: str = serializers.serialize("json", parts, cls=Encoder, **options)
    return text


def _parts(instance: Model) -> Iterator[Model]:
    """Yield the instance as Django serializes it: one object for each of its tables."""
    for parent in reversed(concrete(type(instance))._meta.get_parent_list()):
        yield parent(**{field.attname: getattr(instance, field.attname) for field in all_fields(parent)})
    yield instance
