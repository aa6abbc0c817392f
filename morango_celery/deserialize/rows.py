"""A compiled shortcut from JSON to table row, for models whose code is all Morango's own.

For such a model the way over an instance (``deserialize``, ``clean_fields``, ``save``) depends on
its fields alone, so it is worked out once per class: one small function per column. A shortcut is
taken only when a value is plainly right as it is. In every other case, valid or not, `Unsure` sends
the record the long way, which alone decides, and words the error.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from django.db import models
from morango.models.core import Store, SyncableModel

from morango_celery.deserialize.conversions import Convert, Unsure, conversion
from morango_celery.deserialize.traits import Way, once_per_model, target_model, traits_of

__all__ = ["RowPlan", "Unsure", "row_plan"]


@dataclass(frozen=True)
class RowPlan:
    """How to make rows of one model."""

    columns: tuple[tuple[str, Callable[[], Any], Convert], ...]
    """For each concrete field: JSON key, default, conversion."""
    references: tuple[tuple[int, str, models.ForeignKey[Any, Any]], ...]
    """For each foreign key: position among the columns, verbose name of the target, field."""
    key_position: int
    """Which column is the primary key."""

    def row(self, store: Store) -> list[Any]:
        """The column values of one record.

        :raises Unsure: take the long way
        """
        try:
            data = json.loads(store.serialized)
        except (ValueError, RecursionError):
            raise Unsure from None
        if type(data) is not dict:
            raise Unsure
        data["_morango_source_id"] = store.source_id
        data["_morango_partition"] = store.partition
        data["_morango_dirty_bit"] = False
        return [convert(data[key] if key in data else default()) for key, default, convert in self.columns]


@once_per_model
def row_plan(model: type[SyncableModel]) -> RowPlan | None:
    """The plan for a model; None when its own code, or a field's, has a say."""
    traits = traits_of(model)
    if traits.way is not Way.BULK or traits.follows_relations or traits.in_tree:
        return None
    columns = []
    references = []
    for position, field in enumerate(traits.fields):
        convert = conversion(field)
        if convert is None:
            return None
        columns.append((field.attname, field.get_default, convert))
        if isinstance(field, models.ForeignKey):
            references.append((position, str(target_model(field)._meta.verbose_name), field))
    return RowPlan(tuple(columns), tuple(references), traits.fields.index(model._meta.pk))
