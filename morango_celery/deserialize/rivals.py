"""Records whose unique values other rows have: found by one query per constraint, instead of by trials."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any, TypeAlias

from django.db import DatabaseError, transaction
from django.db.models import Field, Model
from morango.models.core import SyncableModel

from morango_celery.deserialize import sql
from morango_celery.deserialize.groups import Group
from morango_celery.deserialize.task import DeserializeTask
from morango_celery.deserialize.traits import once_per_model, traits_of
from morango_celery.deserialize.values import database_values

Fields: TypeAlias = "tuple[Field[Any, Any], ...]"


def rivals(carriers: Group) -> set[DeserializeTask]:
    """Those that claim what a row of the table has, or what one before them among `carriers` claims too.

    Where two of them exchange their values, or one takes what the other gives up, more than the losers.
    Conditions and expressions in constraints are not understood: it is a guess, and may be empty.

    Cost: one query per unique constraint.
    """
    found: set[DeserializeTask] = set()
    for model in dict.fromkeys(carrier.model._meta.concrete_model for carrier in carriers):
        same = [carrier for carrier in carriers if carrier.model._meta.concrete_model is model]
        for fields in unique_fields(same[0].model):
            try:
                with transaction.atomic():
                    found.update(_rivals(same, fields))
            except DatabaseError as error:  # of a value that no row can have
                if sql.is_transient(error):
                    raise
    return found


@once_per_model
def unique_fields(model: type[SyncableModel]) -> tuple[Fields, ...]:
    """The fields of each unique constraint of the model's table but the primary key."""
    table: type[Model] = model._meta.concrete_model or model
    options = table._meta
    together = [*options.unique_together, *(each.fields for each in options.total_unique_constraints)]
    alone = [(field,) for field in traits_of(model).fields if field.unique and not field.primary_key]
    by_name = {field.name: field for field in traits_of(model).fields}
    return *alone, *(tuple(by_name[name] for name in names) for names in together)


def _rivals(carriers: Group, fields: Fields) -> Group:
    key = carriers[0].model._meta.pk
    rows = [_values(carrier, (key, *fields)) for carrier in carriers]
    taken = sql.taken(carriers[0].model, fields, rows)
    claimed: set[str] = set()
    for place, (_, *values) in enumerate(rows):
        claim = json.dumps(values, default=str)
        if claim in claimed and None not in values:
            taken.add(place)
        claimed.add(claim)
    return [carriers[place] for place in taken]


def _values(carrier: DeserializeTask, fields: Sequence[Field[Any, Any]]) -> list[Any]:
    if carrier.row is None:
        assert carrier.app_model is not None
        return database_values(carrier.app_model, fields)
    columns = traits_of(carrier.model).fields
    return [carrier.row.values[columns.index(field)] for field in fields]
