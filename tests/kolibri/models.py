"""Facts about Kolibri's models for a comparison, as plain data."""

from __future__ import annotations

from typing import Any, TypedDict

from django.db.models import Field, ForeignKey, Model
from morango.registry import syncable_models


class ModelFacts(TypedDict):
    """One syncable model."""

    table: str
    is_tree: bool
    """True if it refers to itself, which Morango handles in a way of its own."""
    clock_columns: list[str]
    """Columns that ``save()`` fills from the clock (``auto_now``, ``auto_now_add``)."""


def model_facts(profile: str) -> dict[str, ModelFacts]:
    """Describe the models of `profile` by their Morango names, in Morango's order."""
    return {model.morango_model_name: _facts(model) for model in syncable_models.get_models(profile)}


def _facts(model: type[Model]) -> ModelFacts:
    fields = [field for field in model._meta.get_fields() if isinstance(field, Field)]
    return {
        "table": model._meta.db_table,
        "is_tree": any(
            issubclass(model, _target(field)) for field in fields if isinstance(field, ForeignKey)
        ),
        "clock_columns": [
            str(field.column)
            for field in fields
            if getattr(field, "auto_now", False) or getattr(field, "auto_now_add", False)
        ],
    }


def _target(field: ForeignKey[Any, Any]) -> type[Model]:
    target: type[Model] = field.related_model  # type: ignore[assignment]  # a name only until models are loaded
    return target
