"""Request and report of a comparison."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any, Literal

from morango.models.certificates import Filter

VERSION = 1
"""Version of the JSON's keys."""


@dataclass(frozen=True)
class Request:
    """Records to compare, and limits."""

    profile: str
    sync_filter: Filter | None = None
    records: int | None = None
    """Largest number of records; None for all that wait, or for `DEFAULT_SAMPLE_RECORDS` to replay."""
    replay: bool = False
    """True to take a sample of clean records as well, with their targets: they are made dirty first."""
    transfer_session_id: str | None = None
    """Only records that this transfer session brought, and their targets."""
    seconds: float | None = None
    """Longest time for which the transaction may hold its locks; None for no limit."""
    show_values: bool = False
    """True to keep the values that differ, and not only the names of their columns."""


@dataclass(frozen=True)
class SideFigures:
    """Result of one of the two functions."""

    seconds: float
    peak_bytes: int | None
    """Growth of the process's resident memory at its highest; None where the system doesn't tell."""
    failed_with: str | None = None
    """The exception that ended the function."""


@dataclass(frozen=True)
class Counts:
    """Records of a model by outcome."""

    saved: int = 0
    deleted: int = 0
    """Deleted, or noted as deleted with a target."""
    failed: int = 0
    left: int = 0
    """Dirty still, without an error."""


@dataclass(frozen=True)
class ModelFigures:
    """Records of one model, and their outcomes on each side."""

    model: str
    records: int
    morango: Counts
    ours: Counts


@dataclass(frozen=True)
class Difference:
    """A row that differs."""

    table: str
    row: str
    """Primary key of the row; for a table numbered by the database, the values of its unique columns."""
    kind: Literal["columns", "missing", "additional"]
    """``missing``: only Morango leaves such a row; ``additional``: only we do."""
    columns: Sequence[str] = ()
    documented: str | None = None
    """The anchor in ``docs/fidelity.md`` of the deviation that explains it."""
    values: Mapping[str, tuple[Any, Any]] | None = None
    """Values that Morango and we leave, by column."""


@dataclass(frozen=True)
class Report:
    """Result of a comparison."""

    profile: str
    filter: Sequence[str] | None
    replayed: bool
    records: int
    quarantined: int
    """Quarantined records, which neither function was given."""
    set_aside: Mapping[str, str]
    """Records that abort Morango's function, and the error that each has with us: both functions were run
    without them."""
    morango: SideFigures
    ours: SideFigures
    seconds: float
    """Duration of the whole comparison."""
    models: Sequence[ModelFigures] = ()
    differences: int = 0
    """Number of rows that differ, and that no documented deviation explains."""
    documented: Mapping[str, int] = field(default_factory=dict)
    """Number of rows that differ as ``docs/fidelity.md`` says, by its anchor."""
    examples: Sequence[Difference] = ()
    """The first rows that differ, undocumented ones before others."""

    @property
    def ratio(self) -> float:
        """Return the number of times that Morango's function takes as long as ours."""
        return self.morango.seconds / max(self.ours.seconds, 1e-6)

    def as_json(self) -> dict[str, Any]:
        """Return the report for programs: ids, names of columns, and values only if they were asked for."""
        return {"version": VERSION, **asdict(self), "ratio": round(self.ratio, 2)}
