"""Records changes of chosen models: from Django's signals to lines that wait for the log.

A line is inserted in the transaction of its change, so it is rolled back with it, and outlives whatever
happens between the commit and the file. What is written to the file, and when, is `logfile`'s.
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
from django.db.models.signals import m2m_changed, post_delete, post_save

from morango_celery.conf import problems, settings
from morango_celery.oplog.lines import Operation, format_line
from morango_celery.oplog.logfile import write_out
from morango_celery.oplog.meta import all_fields, concrete, rows
from morango_celery.oplog.models import RecordedChange
from morango_celery.oplog.quiet import is_applying

logger = logging.getLogger(__name__)

_UID = "morango_celery.oplog.{}"
_CLEARED = "_oplog_cleared"


class Encoder(DjangoJSONEncoder):
    """Django's, which cuts times off after milliseconds, without that."""

    def default(self, o: Any) -> Any:
        if isinstance(o, datetime.datetime):
            text = o.isoformat()
            return text.removesuffix("+00:00") + "Z" if text.endswith("+00:00") else text
        if isinstance(o, datetime.time) and o.tzinfo is None:
            return o.isoformat()
        return super().default(o)


def connect() -> None:
    """Listen to the changes of the models that ``OPLOG_MODELS`` names. Safe to call again."""
    if problems():
        return  # a system check says what is wrong
    recorded = recorded_models()
    for model in apps.get_models():
        if concrete(model) not in recorded:
            continue
        post_save.connect(_saved, sender=model, dispatch_uid=_UID.format("saved"))
        post_delete.connect(_deleted, sender=model, dispatch_uid=_UID.format("deleted"))
        for field in model._meta.local_many_to_many:
            through: Any = field.remote_field.through
            if through._meta.auto_created:
                m2m_changed.connect(_relations_changed, sender=through, dispatch_uid=_UID.format("m2m"))


def recorded_models() -> set[type[Model]]:
    """The models that ``OPLOG_MODELS`` names, and those whose tables hold a part of their objects."""
    labels = {label.lower() for label in settings.OPLOG_MODELS}
    named = [concrete(m) for m in apps.get_models() if m._meta.label_lower in labels]
    return {model for name in named for model in (name, *name._meta.get_parent_list())}


def record(operation: Operation, instances: Iterable[Model]) -> None:
    """Record changes that Django sends no signal for, such as those of ``bulk_create`` and ``update``.

    Call it in the transaction of the change, with the objects as they are in the database.
    """
    now = time.time()
    lines = [RecordedChange(text=_line(now, operation, instance)) for instance in instances]
    if len(lines) == 1:
        lines[0].save(force_insert=True)
    else:
        RecordedChange.objects.bulk_create(lines, batch_size=500)
    waiting = connection.run_on_commit
    if lines and not (waiting and waiting[-1][1] is _write_out):
        transaction.on_commit(_write_out)


def _write_out() -> None:
    """The change is committed: whatever is wrong with the file is not its author's fault."""
    try:
        write_out()
    except (OSError, DatabaseError, InterfaceError):
        logger.exception(
            "The log can't be written at the moment. Nothing is lost: the changes are in the database, and "
            "are written with the next one, or by `manage.py record_objects`."
        )


def _saved(
    instance: Model, raw: bool, using: str, update_fields: frozenset[str] | None, **kwargs: Any
) -> None:
    if raw or _is_not_ours(using):
        return
    if update_fields is not None or instance.get_deferred_fields() or _has_expressions(instance):
        instance = _as_stored(instance)
    record(Operation.SAVE, [instance])


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
    """Many-to-many values are a part of the object that has the field."""
    if _is_not_ours(using):
        return
    if not reverse:
        if action.startswith("post_"):
            record(Operation.SAVE, [_as_stored(instance)])
    elif action == "pre_clear":
        instance.__dict__[_CLEARED] = _related(sender, model, instance)
    elif action == "post_clear":
        record(Operation.SAVE, rows(model).filter(pk__in=instance.__dict__.pop(_CLEARED)))
    elif action.startswith("post_") and pk_set:
        record(Operation.SAVE, rows(model).filter(pk__in=pk_set).order_by("pk"))


def _related(through: Any, model: type[Model], instance: Model) -> list[Any]:
    """Keys of the objects of `model` that are related to `instance`, which doesn't have the field itself."""
    relations: Any = model._meta
    (field,) = (f for f in relations.many_to_many if f.remote_field.through is through)
    ours, theirs = field.m2m_reverse_field_name(), field.m2m_column_name()
    return list(through._base_manager.filter(**{ours: instance.pk}).values_list(theirs, flat=True))


def _is_not_ours(using: str) -> bool:
    """Lines wait in one database, so changes in others can't be recorded along with them."""
    return using != DEFAULT_DB_ALIAS or is_applying()


def _has_expressions(instance: Model) -> bool:
    return any(hasattr(value, "resolve_expression") for value in instance.__dict__.values())


def _as_stored(instance: Model) -> Model:
    stored: Model = rows(type(instance)).get(pk=instance.pk)
    return stored


def _line(now: float, operation: Operation, instance: Model) -> str:
    parts = [instance] if operation is Operation.DELETE else list(_parts(instance))
    try:
        objects = _serialized(parts, operation)
    except Exception:  # values as they were assigned, of any type: those that were stored can be serialized
        if operation is Operation.DELETE:
            raise
        objects = _serialized(list(_parts(_as_stored(instance))), operation)
    return format_line(now, operation, objects)


def _serialized(parts: Sequence[Model], operation: Operation) -> str:
    natural = settings.OPLOG_NATURAL_KEYS
    options: dict[str, Any] = {"use_natural_foreign_keys": natural, "use_natural_primary_keys": natural}
    if operation is Operation.DELETE:  # the many-to-many values are gone
        options["fields"] = [field.name for field in parts[0]._meta.local_fields]
    text: str = serializers.serialize("json", parts, cls=Encoder, **options)
    return text


def _parts(instance: Model) -> Iterator[Model]:
    """The instance as Django serializes it: one object for each table that holds a part of it."""
    for parent in reversed(concrete(type(instance))._meta.get_parent_list()):
        yield parent(**{field.attname: getattr(instance, field.attname) for field in all_fields(parent)})
    yield instance
