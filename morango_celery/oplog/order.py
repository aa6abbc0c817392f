"""Order of writing: referenced models, and referenced rows of one model, come first."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from typing import Any

from django.apps import apps
from django.db.models import ForeignKey, Model

from morango_celery.oplog.meta import concrete, own_fields
from morango_celery.oplog.rows import ObjectRow, Table


def place(model: type[Model]) -> int:
    """Return the place of a concrete model: behind its foreign keys' targets, as far as possible."""
    return _places()[model]


@cache
def _places() -> dict[type[Model], int]:
    places: dict[type[Model], int] = {}
    entered = set()

    def visit(model: type[Model]) -> None:
        if model in entered:
            return
        entered.add(model)
        for field in own_fields(model):
            if isinstance(field, ForeignKey):
                visit(concrete(field.remote_field.model))
        places[model] = len(places)

    for model in apps.get_models(include_auto_created=True):
        visit(concrete(model))
    return places


def referenced_first(table: Table, rows: Sequence[ObjectRow]) -> list[ObjectRow]:
    """Return rows of one model, each behind the rows that it refers to, otherwise in their order."""
    positions = [
        position
        for position, field in enumerate(table.fields)
        if isinstance(field, ForeignKey) and concrete(field.remote_field.model) is rows[0].key[0]
    ]
    if not positions:
        return list(rows)
    waiting: dict[Any, ObjectRow] = {row.key[1]: row for row in rows}
    ordered: list[ObjectRow] = []
    for row in rows:
        branch = [row]  # from a row up to an ancestor without a waiting parent
        while branch:
            top = branch[-1]
            waiting.pop(top.key[1], None)
            parent = next((waiting[top.values[p]] for p in positions if top.values[p] in waiting), None)
            if parent is not None:
                branch.append(parent)
                continue
            branch.pop()
            ordered.append(top)
    return _unique(ordered)


def _unique(rows: Sequence[ObjectRow]) -> list[ObjectRow]:
    return list({row.key: row for row in rows}.values())
