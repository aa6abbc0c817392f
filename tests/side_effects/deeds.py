"""Deeds of a model's code to other rows while a sync is applied."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

from django.apps import apps
from django.db import connection
from django.db.models import F

NUMBERED = ("Item", "Slip", "Order", "Late")
TARGETS = (*NUMBERED, "Part", "Label")


def carry_out(deed: str, target: str) -> None:
    """Do `deed` to each row that has the name `target`."""
    DEEDS[deed](target)


def _model(name: str) -> Any:
    return apps.get_model("side_effects", name)


def _rows(target: str, models: Sequence[str] = TARGETS) -> Iterator[Any]:
    for name in models:
        yield from _model(name).objects.filter(name=target)


def _delete(target: str) -> None:
    for row in _rows(target):
        row.delete()


def _delete_by_query(target: str) -> None:
    for name in TARGETS:
        _model(name).objects.filter(name=target).delete()


def _delete_hard(target: str) -> None:
    for row in _rows(target):
        row.delete(hard_delete=True)


def _save(target: str) -> None:
    for row in _rows(target, NUMBERED):
        row.number += 1
        row.save()


def _save_as_clean(target: str) -> None:
    for row in _rows(target, NUMBERED):
        row.number += 1
        row.save(update_dirty_bit_to=False)


def _save_one_field(target: str) -> None:
    for row in _rows(target, NUMBERED):
        row.number += 1
        row.save(update_fields=["number"])


def _numbered() -> Iterator[Any]:
    return map(_model, NUMBERED)


def _update(target: str) -> None:
    for model in _numbered():
        model.objects.filter(name=target).update(number=F("number") + 1)


def _update_as_clean(target: str) -> None:
    for model in _numbered():
        model.objects.filter(name=target).update(number=F("number") + 1, update_dirty_bit_to=False)


def _update_in_bulk(target: str) -> None:
    for model in _numbered():
        rows = list(model.objects.filter(name=target))
        for row in rows:
            row.number += 1
        model.objects.bulk_update(rows, ["number"])


def _update_by_sql(target: str) -> None:
    with connection.cursor() as cursor:
        for model in _numbered():
            cursor.execute(f"UPDATE {model._meta.db_table} SET number = number + 1 WHERE name = %s", [target])


def _delete_by_sql(target: str) -> None:
    with connection.cursor() as cursor:
        for name in ("Slip", "Order", "Late"):
            cursor.execute(f"DELETE FROM {_model(name)._meta.db_table} WHERE name = %s", [target])


def _create(target: str) -> None:
    _model("Item").objects.get_or_create(name=target, defaults={"number": 7})


def _create_in_bulk(target: str) -> None:
    model = _model("Item")
    new = model(name=target, number=7)
    new.id = new.calculate_uuid()
    if not model.objects.filter(pk=new.id).exists():
        model.objects.bulk_create([new])


DEEDS: Mapping[str, Callable[[str], None]] = {
    "delete": _delete,
    "delete by query": _delete_by_query,
    "delete hard": _delete_hard,
    "save": _save,
    "save as clean": _save_as_clean,
    "save one field": _save_one_field,
    "update": _update,
    "update as clean": _update_as_clean,
    "update in bulk": _update_in_bulk,
    "update by SQL": _update_by_sql,
    "delete by SQL": _delete_by_sql,
    "create": _create,
    "create in bulk": _create_in_bulk,
}
