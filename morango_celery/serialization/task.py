"""The carrier of one app row on its way into the Store."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from morango.models.core import SyncableModel


@dataclass(slots=True)
class SerializeTask:
    """One app row, and what becomes of its Store row. Not a Celery task."""

    model: type[SyncableModel]
    id: str
    """32-digit hex."""
    partition: str
    source_id: str
    self_ref_fk: str
    """The id of the row of the same model that it refers to; ``""`` without one."""
    names: tuple[Any, ...]
    """Names of the values, as the model's ``serialize()`` has them; nearly always one tuple for all rows."""
    values: tuple[Any, ...]
    size: int = 0
    """About how many bytes the values have that may be large."""
    stored: str | None = None
    """What the Store row holds until now; None when there is no Store row."""
    serialized: str = ""
    """What it is to hold."""


def size_of(value: object) -> int:
    """Return about how many bytes a value takes in JSON, if that may be many."""
    if isinstance(value, str | bytes | bytearray | memoryview):
        return len(value)
    return len(str(value)) if isinstance(value, dict | list | tuple) else 0
