"""Records with unique values that other rows have, found by one query per constraint instead of by trials.

An attempt that fails costs as much as one that doesn't, and all of it has to be written once more.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any, TypeAlias

from django.db import DatabaseError, transaction
from django.db.models import Field, Model
from morango.models.core import SyncableModel

from morango_celery.db.errors import INFRASTRUCTURE_ERRORS, is_transient
from morango_celery.deserialization.app_rows import conflicting_positions
from morango_celery.deserialization.groups import Group
from morango_celery.deserialization.issuer import is_systemic
from morango_celery.deserialization.task import DeserializeTask
from morango_celery.deserialization.traits import once_per_model, traits_of

Fields: TypeAlias = "tuple[Field[Any, Any], ...]"


def find_conflicting(carriers: Group) -> set[DeserializeTask]:
    """Return carriers that claim a unique value of a row in the table, or of a carrier before them.

    Where two of them exchange their values, or one takes a value that the other gives up, more than the
    losers. Conditions and expressions in constraints are not understood: it is a guess, and may be empty.

    Cost: one query per unique constraint.
    """
    found: set[DeserializeTask] = set()
    for model in dict.fromkeys(carrier.model._meta.concrete_model for carrier in carriers):
        same = [carrier for carrier in carriers if carrier.model._meta.concrete_model is model]
        for fields in unique_fields(same[0].model):
            try:
                with transaction.atomic():
                    found.update(_conflicting(same, fields))
            except TypeError:  # of a value that JSON has no form of
                continue
            except DatabaseError as error:  # of a value that no row can have
                if is_transient(error) or is_systemic(error):
                    raise
    return found


@once_per_model
def unique_fields(model: type[SyncableModel]) -> tuple[Fields, ...]:
    """Return the fields of each unique constraint of the model's table but the primary key."""
    table: type[Model] = model._meta.concrete_model or model
    options = table._meta
    together = [*options.unique_together, *(each.fields for each in options.total_unique_constraints)]
    alone = [(field,) for field in traits_of(model).fields if field.unique and not field.primary_key]
    by_name = {field.name: field for field in traits_of(model).fields}
    return *alone, *(tuple(by_name[name] for name in names) for names in together)


def _conflicting(carriers: Group, fields: Fields) -> Group:
    wanted = (carriers[0].model._meta.pk, *fields)
    columns = traits_of(carriers[0].model).fields
    positions = [columns.index(field) for field in wanted]
    claims = [
        (carrier, values)
        for carrier in carriers
        if (values := _values(carrier, positions)) is not None and None not in values
    ]
    if not claims:
        return []
    found = conflicting_positions(carriers[0].model, fields, [values for _, values in claims])
    claimed: set[str] = set()
    for place, (_, (_, *values)) in enumerate(claims):
        claim = json.dumps(values, default=str)
        if claim in claimed:
            found.add(place)
        claimed.add(claim)
    return [claims[place][0] for place in found]


def _values(carrier: DeserializeTask, positions: Sequence[int]) -> list[Any] | None:
    """Return the values of an unsaved carrier, without the changes that saving makes; None if it can't be
    saved, or isn't parsed yet.

    :param positions: places among the model's columns
    """
    if carrier.parsed is None:
        return None
    try:
        return carrier.parsed.column_values(positions)
    except INFRASTRUCTURE_ERRORS:
        raise
    except Exception:  # saving raises it again, as the record's error
        return None
