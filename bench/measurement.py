"""Orders to measuring processes and their answers, passed as JSON. No Django in here."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Order:
    """An order to a process: the work that it measures."""

    implementation: str
    """A key of ``bench.implementations.IMPLEMENTATIONS``."""
    models: str
    case: str
    records: int
    workers: int = 0
    pinned: bool = False
    """True for one core, together with the PostgreSQL backend."""


@dataclass(frozen=True)
class Measurement:
    """The answer of a process."""

    seconds: float
    """Duration of the work; for several syncs, the median of one."""
    records: int
    """Number of records that were worked on in that time."""
    peak_rss_mb: float
    """Peak memory of the process that did the work; for several processes, of the largest."""
    left_dirty: int
    """Records that were not deserialized, or not serialized."""
    statements: float
    """Statements that this process sent to the database; for several syncs, the median of one."""
    batches: float
    """Number of batches in the ledger; 0 for implementations without batches."""
    message_bytes: float = 0
    """Size of the largest message in Redis, where messages are measured."""
    redis_mb: float = 0
    """Peak memory of Redis, there."""
    commits: float = 0
    """This process's; of several syncs, the median of one."""
    median_share: float = 0
    """Syncs asked for at once: the time until half were completed, as a share of the time until all were."""
    ids_per_record: float = 0
    """Ids that all runs handed out together, for each record, where runs share records."""

    @property
    def records_per_second(self) -> float:
        return self.records / self.seconds
