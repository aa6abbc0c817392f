"""Rules about records, by which a declared equivalent says the requirements of a model's own code."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, TypeAlias


@dataclass(frozen=True)
class SameAs:
    """Rule: a column has the value of the same column in the row that a foreign key refers to."""

    column: str
    """Attname of a foreign key, or of a field of Morango's ids, in both models."""
    foreign_key: str
    """Name of a foreign key of the model. It must not be null."""


@dataclass(frozen=True)
class TargetIn:
    """Rule: a column of the row that a foreign key refers to has one of some values."""

    foreign_key: str
    """Name of a foreign key of the model. It must not be null."""
    column: str
    """Attname of a field of text, in the model that the foreign key refers to."""
    values: tuple[str, ...]


@dataclass(frozen=True)
class RowExists:
    """Rule: the model's table has a row with some values, before the record itself is written.

    The code that it stands for refuses the record for want of such a row, and does nothing else. The row may
    be of the same sync, whatever the order of the records.
    """

    columns: tuple[tuple[str, str], ...]
    """Pairs of a column of that row and of its value: the name of a column of the record, or of one of the
    row that a foreign key refers to, as ``group.parent_id``. All are ids of Morango's, and none is null."""
    when: TargetIn | None = None
    """Condition on the record; it needs no such row if this doesn't hold."""


@dataclass(frozen=True)
class Between:
    """Rule: a number lies in a range, its ends included. It must not be null."""

    column: str
    low: float
    high: float


@dataclass(frozen=True)
class Computed:
    """Rule: a column gets the value that a function makes of columns of the same record."""

    column: str
    sources: tuple[str, ...]
    function: Callable[..., Any]
    """Pure function of the sources' values, as the database's driver takes them."""


Rule: TypeAlias = "SameAs | TargetIn | RowExists | Between | Computed"
