"""Parsed records: a row of the fast path, or an instance of the model. Both answer the same questions."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

from django.db import connection
from django.db.models import ForeignKey
from morango.models.core import SyncableModel

from morango_celery.deserialization.rows import Row
from morango_celery.deserialization.traits import traits_of


@dataclass(frozen=True, slots=True, eq=False)
class Instance:
    """Deserialized, unsaved instance of a record's model."""

    app_model: SyncableModel

    def reference(self, key: ForeignKey[Any, Any]) -> Any:
        """Return the value of a foreign key."""
        return getattr(self.app_model, key.attname)

    def column_value(self, attname: str) -> Any:
        """Return the value of a column as the instance has it."""
        return getattr(self.app_model, attname)

    def column_values(self, positions: Sequence[int]) -> list[Any]:
        """Return values of columns as the database's driver takes them, without the changes that saving
        makes.

        :param positions: places among the model's columns
        :raises Exception: anything that a field raises about its value
        """
        fields = traits_of(type(self.app_model)).fields
        return [
            fields[position].get_db_prep_save(getattr(self.app_model, fields[position].attname), connection)
            for position in positions
        ]


Parsed: TypeAlias = Row | Instance
