"""The overview of all runs in words, and as numbers that a monitor draws."""

from __future__ import annotations

from morango_celery.comparison.shadow import Totals
from morango_celery.management.formatting import comparisons_text, duration, number_of, quarantined_text
from morango_celery.runs.overview import Overview
from morango_celery.runs.pausing import in_words
from morango_celery.runs.workers import SignsOfWorkers


def summary(found: Overview, comparisons: Totals) -> list[str]:
    lines = [f"{found.unfinished:,} not done."]
    if found.workers is not None:
        lines.append(worker_text(found.workers))
    if found.waiting:
        lines.append(waiting_text(found))
    if found.in_error:
        lines.append(f"{number_of(found.in_error, 'record')} in error now.")
    if found.quarantined:
        lines.append(f"{quarantined_text(found.quarantined)}.")
    if comparisons.total:
        lines.append(comparisons_text(comparisons))
    if found.pauses:
        lines.append(in_words(found.pauses))
    return lines


def numbers(found: Overview, comparisons: Totals) -> dict[str, float]:
    """Return the numbers that a monitor draws."""
    workers = found.workers
    signs = {} if workers is None else {"workers": float(workers.number)}
    if workers is not None and workers.idle_seconds is not None:
        signs["worker_idle_seconds"] = workers.idle_seconds
    return {
        "unfinished": found.unfinished,
        "oldest_pending_seconds": found.oldest_pending_seconds,
        "waiting": found.waiting,
        "in_error": found.in_error,
        "quarantined": found.quarantined,
        "different": comparisons.different,
        **signs,
    }


def worker_text(workers: SignsOfWorkers) -> str:
    """Like "2 workers; the last sign of life was 12 s ago."."""
    number = number_of(workers.number, "worker")
    if workers.idle_seconds is None:
        return f"{number}; none has ever given a sign of life."
    return f"{number}; the last sign of life was {duration(workers.idle_seconds)} ago."


def waiting_text(found: Overview) -> str:
    """Like "20 records wait to be tried, without an error.", and who takes them if no run is to."""
    text = f"{number_of(found.waiting, 'record')} {'waits' if found.waiting == 1 else 'wait'} to be tried"
    text += ", without an error"
    if found.unfinished:
        return f"{text}."
    if found.failed:
        return f"{text}: their next sync takes them, or `manage.py retry_run` of the run that failed."
    return f"{text}: their next sync takes them, or `manage.py deserialize`."
