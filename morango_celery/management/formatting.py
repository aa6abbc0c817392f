"""The state of runs in words."""

from __future__ import annotations

import datetime

from morango_celery.comparison.shadow import Totals
from morango_celery.models import Batch, Run
from morango_celery.printable import printable
from morango_celery.runs.status import Status

COUNT_LABELS = {
    "saved": "saved",
    "deleted": "deleted",
    "propagated": "deleted with what they refer to",
    "conflicted": "conflicted with local edits",
    "failed": "failed",
}


def as_text(status: Status) -> list[str]:
    """Return three lines or more; the first has the run's state."""
    run = status.run
    lines = [
        f"Run {run.pk} of {printable(run.profile)}: {run.state}{_progress(run)}",
        f"  {_records(status)}",
    ]
    if run.has_ended:
        lines.append(f"  ended {_ago(status)} ago")
        if status.left:
            lines.append(f"  {left_text(status.left, run)}")
    elif status.is_stalled:
        lines.append(
            f"  STALLED: no sign of life for {_ago(status)}. See that a worker is running; what its log says "
            "comes next."
        )
    elif run.state == Run.State.PENDING and not (run.in_process or run.sharing or run.paused):
        lines.append(f"  has waited for a worker for {_ago(status)}")
    else:
        lines.append(f"  last sign of life {_ago(status)} ago")
    if run.sharing:
        lines.append(f"  {run.sharing}")
    if not run.is_known:
        lines.append("  written by a newer version of morango_celery, and left to workers of that version")
    if run.paused:
        lines.append("  paused: it waits for `manage.py resume_runs`")
    if status.quarantined:
        lines.append(f"  {quarantined_text(status.quarantined)}")
    lines += [f"  {printable(line)}" for line in run.error.split("\n") if line]
    return lines


def left_text(count: int, run: Run) -> str:
    """Like "5 records wait under its filter, without an error: `manage.py retry_run 12` takes them, ..."."""
    records, them = ("1 record waits", "it") if count == 1 else (f"{count:,} records wait", "them")
    return (
        f"{records} under its filter, without an error: `manage.py retry_run {run.pk}` takes {them}, or the "
        "next sync does"
    )


def quarantined_text(count: int) -> str:
    """Like "2 records are quarantined: `deserialize --retry-errors` retries them"."""
    records = "1 record is" if count == 1 else f"{count:,} records are"
    return f"{records} quarantined: `deserialize --retry-errors` retries {'it' if count == 1 else 'them'}"


def comparisons_text(totals: Totals) -> str:
    """Like "Syncs compared with Morango: 98 the same, 1 DIFFERENT (3 rows), 1 to come"."""
    texts = [f"{totals.same:,} the same"]
    if totals.different:
        texts.append(f"{totals.different:,} DIFFERENT ({totals.differences:,} rows)")
    if totals.failed:
        texts.append(f"{totals.failed:,} could not be compared")
    if totals.waiting:
        texts.append(f"{totals.waiting:,} to come")
    return f"Syncs compared with Morango: {', '.join(texts)}."


def as_table_row(status: Status) -> str:
    run = status.run
    state = status.state
    return (
        f"{run.pk:>8}  {state:<9}  {run.created_at:%Y-%m-%d %H:%M:%S}  {_ago(status):>10}  {run.done:>11,}  "
        f"{run.failed:>8,}  {printable(run.profile)}"
    )


TABLE_HEADING = (
    f"{'run':>8}  {'state':<9}  {'created (UTC)':<19}  {'last sign':>10}  {'records':>11}  {'failed':>8}  "
    "profile"
)


def counts_text(row: Run | Batch) -> str:
    """Like "1,990 saved, 10 failed"; empty as long as nothing came of any record."""
    return ", ".join(
        f"{getattr(row, name):,} {text}" for name, text in COUNT_LABELS.items() if getattr(row, name)
    )


def number_of(number: int, noun: str, nouns: str = "") -> str:
    """Like "1 run" or "2,000 runs".

    :param nouns: the plural, if it isn't the noun with an s
    """
    return f"{number:,} {noun if number == 1 else nouns or f'{noun}s'}"


def duration(seconds: float) -> str:
    """Like "0.4 s", "12 s", "3 min 20 s" or "2 days, 1:05:00"."""
    if seconds < 10:
        return f"{seconds:.1f} s"
    if seconds < 60:
        return f"{seconds:.0f} s"
    whole = round(seconds)
    return f"{whole // 60} min {whole % 60} s" if whole < 3600 else str(datetime.timedelta(seconds=whole))


def _progress(run: Run) -> str:
    if run.has_ended or not run.stage:
        return ""
    again = f", pass {run.pass_number}" if run.pass_number > 1 else ""
    done = run.stage_batches - run.open_batches
    return f", stage {run.stage} ({run.stage_models}){again}, {done:,} of {run.stage_batches:,} batches done"


def _records(status: Status) -> str:
    run = status.run
    found = f"{run.done:,} of {status.total:,} records"
    if run.done:
        found += f": {counts_text(run)}"
    if run.left_to_others:
        found += f"{',' if run.done else ':'} {run.left_to_others:,} done by other runs"
    if status.records_per_second:
        digits = 0 if status.records_per_second >= 10 else 1
        found += f"; {status.records_per_second:,.{digits}f} a second"
    if status.seconds_left is not None:
        found += f", about {duration(status.seconds_left)} left"
    return found


def _ago(status: Status) -> str:
    return duration(status.idle_seconds)
