"""Metrics: their names, kinds, meanings and labels."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from morango_celery.models import Run, counts

PREFIX = "morango_celery_"

Kind = Literal["counter", "gauge", "histogram"]


@dataclass(frozen=True)
class Metric:
    """A metric as it is exposed."""

    name: str
    kind: Kind
    meaning: str
    labels: tuple[str, ...] = ()
    values: tuple[str, ...] = ()
    """Values of the last label, if that isn't the profile. Each is exposed from the start, with 0: a counter
    that begins with 1 would show Prometheus no increase."""

    @property
    def counter(self) -> str:
        """Return the name that its counts have in the ledger: `models.counts`."""
        return self.name.removeprefix(PREFIX).removesuffix("_total")

    @property
    def buckets_seconds(self) -> tuple[float, ...]:
        """Return the upper ends of a histogram's buckets, without the last one, which is open."""
        return counts.BUCKETS_SECONDS[self.counter]

    @property
    def sample_names(self) -> tuple[str, ...]:
        """Return the names of its samples, for queries."""
        if self.kind == "histogram":
            return tuple(f"{self.name}_{part}" for part in ("bucket", "sum", "count"))
        return (self.name,)


RUNS = Metric(
    "morango_celery_runs",
    "gauge",
    "Runs that are not done. state: pending (not begun) or running.",
    ("profile", "state"),
    tuple(state.value for state in Run.UNFINISHED),
)
RUNS_STALLED = Metric(
    "morango_celery_runs_stalled",
    "gauge",
    "Runs that are not done and have shown no sign of life for STALLED_AFTER_SECONDS, or four times that in "
    "a process of their own.",
)
OLDEST_PENDING = Metric(
    "morango_celery_oldest_pending_run_seconds",
    "gauge",
    "Waiting time of the oldest pending run that waits for a worker, and neither for another run nor for the "
    "end of a pause; 0 if there is none.",
)
WORKERS = Metric(
    "morango_celery_workers",
    "gauge",
    "Workers that have taken a message within STALLED_AFTER_SECONDS. None where no workers are needed.",
)
WORKER_IDLE = Metric(
    "morango_celery_worker_idle_seconds",
    "gauge",
    "Time since any worker gave a sign of life, +Inf if none ever did. Each worker asks for one a minute, by "
    "default. None where no workers are needed.",
)
RUNS_PAUSED = Metric(
    "morango_celery_runs_paused",
    "gauge",
    "Runs that are not done, and that a pause holds. They are among the pending and running ones, and never "
    "stalled.",
)
PAUSES = Metric(
    "morango_celery_pauses",
    "gauge",
    "Pauses in force: orders to let runs wait.",
)
RUNS_ENDED = Metric(
    "morango_celery_runs_ended_total",
    "counter",
    "Runs that have ended. state: completed, failed or cancelled.",
    ("profile", "state"),
    tuple(counts.ENDED),
)
RUN_SECONDS = Metric(
    "morango_celery_run_seconds",
    "histogram",
    "Time from the request for a run to its end, of completed runs.",
    ("profile",),
)
RECORDS = Metric(
    "morango_celery_records_total",
    "counter",
    "Records that something came of. outcome: saved, deleted, propagated (deleted with what they refer to), "
    "conflicted (with local edits) or failed. The last two count when their run has ended: until then "
    "they may be tried again. A record that fails in several runs counts in each.",
    ("profile", "outcome"),
    Run.COUNTS,
)
NEWLY_FAILED_RECORDS = Metric(
    "morango_celery_newly_failed_records_total",
    "counter",
    "Failed records of ended runs, without those that had failed before: of each run, its failed records "
    "less those that were in error when it began; of a retry of errors, none.",
    ("profile",),
)
DIRTY_RECORDS = Metric(
    "morango_celery_dirty_records",
    "gauge",
    "Store records that are not deserialized. in_error: yes for those that were tried and have an error, "
    "else no.",
    ("profile", "in_error"),
    ("yes", "no"),
)
QUARANTINED_RECORDS = Metric(
    "morango_celery_quarantined_records",
    "gauge",
    "Store records that ended their workers, and that no run tries again until they change or somebody asks. "
    "They are among the dirty ones in error.",
    ("profile",),
)
BATCHES_OPEN = Metric(
    "morango_celery_batches_open",
    "gauge",
    "Batches that are created and not done.",
    ("profile",),
)
BATCHES = Metric(
    "morango_celery_batches_total",
    "counter",
    "Batches that are closed. state: done, or split (taken apart after they had ended workers, or taken too "
    "long).",
    ("profile", "state"),
    tuple(counts.CLOSED),
)
BATCH_SECONDS = Metric(
    "morango_celery_batch_seconds",
    "histogram",
    "Time of a worker for a batch that is done, counted from its last attempt.",
    ("profile",),
)
STAGE_SECONDS = Metric(
    "morango_celery_stage_seconds",
    "histogram",
    "Time from the first attempt at a stage's batches to the end of the last one, of stages that are done.",
)

COMPARISONS = Metric(
    "morango_celery_comparisons_total",
    "counter",
    "Syncs that were compared with Morango's own function (mode compare). result: same, different, or failed "
    "(they could not be compared).",
    ("result",),
    counts.COMPARED,
)
COMPARISON_DIFFERENCES = Metric(
    "morango_celery_comparison_differences_total",
    "counter",
    "Rows of compared syncs that differ from Morango's, except for documented differences.",
)

METRICS = (
    RUNS,
    RUNS_STALLED,
    RUNS_PAUSED,
    PAUSES,
    OLDEST_PENDING,
    WORKERS,
    WORKER_IDLE,
    RUNS_ENDED,
    RUN_SECONDS,
    RECORDS,
    NEWLY_FAILED_RECORDS,
    DIRTY_RECORDS,
    QUARANTINED_RECORDS,
    BATCHES_OPEN,
    BATCHES,
    BATCH_SECONDS,
    STAGE_SECONDS,
    COMPARISONS,
    COMPARISON_DIFFERENCES,
)
