"""Outcomes of records."""

from __future__ import annotations

import enum


class DeserializeOutcome(enum.Enum):
    """Result of deserializing one record."""

    SAVE = "save"
    """Its values are written to the app table."""

    DELETE = "delete"
    """It was deleted elsewhere, and its app row is deleted here."""

    PROPAGATE_DELETE = "propagate_delete"
    """It refers to a deleted record: noted in DeletedModels, not saved."""

    PROPAGATE_HARD_DELETE = "propagate_hard_delete"
    """It refers to a purged record: noted in HardDeletedModels too."""

    ERROR = "error"
    """It stays dirty in the Store, with its error."""
