"""Demands of a run, in seconds of a processor: at a worker, and at the database."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from pathlib import Path


@dataclass(frozen=True)
class Demand:
    """Demand of one piece of work."""

    worker: float = 0.0
    database: float = 0.0
    delay: float = 0.0
    """Seconds in which neither has anything to do: a disk, a round trip, a poll."""

    def times(self, factor: float) -> Demand:
        return Demand(self.worker * factor, self.database * factor, self.delay * factor)

    def __add__(self, other: Demand) -> Demand:
        return Demand(self.worker + other.worker, self.database + other.database, self.delay + other.delay)

    @property
    def seconds(self) -> float:
        """Return the duration on an idle cluster."""
        return self.worker + self.database + self.delay


@dataclass(frozen=True)
class Demands:
    """All that the model knows of our code."""

    run: Demand
    """Demand of a run, however small."""
    planned: Demand
    """Demand of a record that is handed out."""
    record: Demand
    """Demand of a record that is deserialized."""
    batch_records: int = 2000
    source: str = ""
    """Origin of the figures."""

    @property
    def workers_per_core(self) -> float:
        """Return the number of worker processes that keep one core of the database busy."""
        both = self.planned + self.record
        return both.seconds / both.database

    def write(self, path: Path) -> None:
        path.write_text(json.dumps(asdict(self), indent=1) + "\n")

    @classmethod
    def read(cls, path: Path) -> Demands:
        found = json.loads(path.read_text())
        return cls(**{**found, **{name: Demand(**found[name]) for name in ("run", "planned", "record")}})
