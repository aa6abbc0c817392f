"""Further columns of Morango's Store: later releases or forks have some beside those that are known here.

New Store rows get the values that Morango's own way, an instance of `Store`, gives them.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from django.db import connection
from django.db.models import NOT_PROVIDED, Field
from morango.models.core import Store

from morango_celery.django_compat import is_generated

KNOWN = frozenset(
    {
        *("id", "profile", "model_name", "partition", "source_id", "_self_ref_fk"),
        *("serialized", "conflicting_serialized_data"),
        *("deleted", "hard_deleted", "dirty_bit"),
        *("last_saved_instance", "last_saved_counter", "last_transfer_session_id"),
        *("deserialization_error", "deserialization_exception"),
    }
)
"""Columns that this app's statements name, or that are null in a new row."""


def further_fields() -> list[Field[Any, Any]]:
    """Return the fields of Store that aren't known here, but for those that the database fills in itself."""
    return [
        field
        for field in Store._meta.concrete_fields
        if field.attname not in KNOWN
        and not is_generated(field)
        and getattr(field, "db_default", NOT_PROVIDED) is NOT_PROVIDED  # since Django 5.0
    ]


def new_values(fields: Sequence[Field[Any, Any]]) -> list[Any]:
    """Return the values of further fields in a new row, as the database's driver takes them."""
    if not fields:
        return []
    row = Store()
    return [field.get_db_prep_save(field.pre_save(row, True), connection) for field in fields]
