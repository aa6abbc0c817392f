"""Carrier of one app row on its way into the Store."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, NamedTuple

from morango.models.core import SyncableModel
from typing_extensions import override

from morango_celery.reading.partitions import SourceTask


class AppRow(NamedTuple):
    """Values of an app row, as they are read: no instance is made where its model has no code of its own."""

    id: str
    """32-digit hex."""
    partition: str
    source_id: str
    self_ref_fk: str
    """Id of the row of the same model that it refers to; ``""`` without one."""
    names: tuple[Any, ...]
    """Names of the values, as the model's ``serialize()`` has them; nearly always one tuple for all rows."""
    values: tuple[Any, ...]
    size: int = 0
    """Estimate, in bytes, of the values that may be large."""


@dataclass(slots=True)
class SerializeTask(SourceTask):
    """Reference to one app row, and the text that its Store row is to hold. Not a Celery task."""

    model: type[SyncableModel]
    obj: AppRow
    stored: str | None = None
    """Text that the Store row holds until now; None when there is no Store row."""
    serialized: str = ""
    """Text that it is to hold."""

    @property
    @override
    def id(self) -> str:
        return self.obj.id


def size_of(value: object) -> int:
    """Return about how many bytes a value takes in JSON, if that may be many."""
    if isinstance(value, str | bytes | bytearray | memoryview):
        return len(value)
    return len(str(value)) if isinstance(value, dict | list | tuple) else 0
