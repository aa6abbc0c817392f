"""What a process is to measure, and what it found: passed between processes as JSON. No Django in here."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Order:
    """What a process is to measure."""

    implementation: str
    """A key of ``bench.implementations.IMPLEMENTATIONS``."""
    models: str
    case: str
    records: int
    workers: int = 0
    pinned: bool = False
    """On one core, together with its PostgreSQL backend."""


@dataclass(frozen=True)
class Measurement:
    """What a process found out."""

    seconds: float
    """What the work took; where it is several syncs, the median of one."""
    records: int
    """What was worked on in that time."""
    peak_rss_mb: float
    """Of the process that did the work; of several, the largest."""
    left_dirty: int
    """Records that were not deserialized, or not serialized."""
    statements: float
    """What this process sent to the database; of several syncs, the median of one."""
    batches: float
    """In the ledger; 0 for what has none."""
    message_bytes: float = 0
    """Of the largest message in Redis, where messages are what is measured."""
    redis_mb: float = 0
    """What Redis held at most, there."""
    commits: float = 0
    """This process's; of several syncs, the median of one."""
    median_share: float = 0
    """Of syncs asked for at once: when half were completed, as a share of the time until all were."""
    ids_per_record: float = 0
    """How many ids the runs handed out together for each record, where they share records."""

    @property
    def records_per_second(self) -> float:
        return self.records / self.seconds
