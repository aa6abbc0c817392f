"""Looks at the project: its settings, its broker, its workers and its runs."""

from __future__ import annotations

import time
from collections.abc import Iterator

from django.core.checks import INFO, WARNING, run_checks
from django.db import DEFAULT_DB_ALIAS
from django.db.models import QuerySet

from morango_celery.api import runs_in_process
from morango_celery.health.findings import Finding, Severity
from morango_celery.messaging.broker import reach_broker
from morango_celery.models import Run
from morango_celery.runs.status import left_to_newer_version, stalled, unfinished
from morango_celery.runs.workers import live_workers, signs_of_workers
from morango_celery.version import __version__

NAMED = 10
"""Number of runs that a line names."""


def look_at_settings(*, has_database: bool = True) -> Iterator[Finding]:
    """Yield a finding for each message of the system checks that is more than a note.

    :param has_database: False to leave out checks that query the database
    """
    databases = [DEFAULT_DB_ALIAS] if has_database else []
    messages = run_checks(tags=["morango_celery"], include_deployment_checks=True, databases=databases)
    found = [message for message in messages if message.level > INFO and not message.is_silenced()]
    for message in found:
        severity = Severity.WARNING if message.level <= WARNING else Severity.ERROR
        number = (message.id or "").rpartition(".")[2]
        yield Finding("settings", severity, f"{number}: {message.msg}", message.hint or "")
    if not found:
        yield Finding("settings", Severity.OK, "no system check complains")


def look_at_broker(seconds: float) -> Iterator[Finding]:
    if runs_in_process():
        yield Finding("broker", Severity.OK, "none is needed: runs are carried out where syncs arrive")
        return
    began = time.monotonic()
    address = reach_broker(seconds)
    milliseconds = (time.monotonic() - began) * 1000
    yield Finding("broker", Severity.OK, f"{address} answered in {milliseconds:.0f} ms")


def look_at_workers() -> Iterator[Finding]:
    """Yield a finding for each worker that was seen lately, and one if none shows a sign of life."""
    if runs_in_process():
        yield Finding("workers", Severity.OK, "none is needed: runs are carried out where syncs arrive")
        return
    signs = signs_of_workers()
    if signs.are_lost():
        seconds = signs.idle_seconds
        none = "none has ever given a sign of life"
        yield Finding(
            "workers",
            Severity.ERROR,
            none if seconds is None else f"none has given a sign of life for {seconds:,.0f} s",
            "Start one with this project's broker, queue and database: "
            "`python -m morango_celery.worker -A PROJECT`.",
        )
        return
    for worker in live_workers():
        seconds = (worker.now - worker.seen_at).total_seconds()
        text = f"{worker.name} with morango_celery {worker.version}, seen {seconds:,.0f} s ago"
        if worker.version == __version__:
            yield Finding("workers", Severity.OK, text)
        else:
            remedy = (
                f"Here it is {__version__}. Two neighbouring versions work side by side while you upgrade; "
                "then restart what is older."
            )
            yield Finding("workers", Severity.WARNING, text, remedy)


def look_at_runs() -> Iterator[Finding]:
    """Yield a finding for stalled runs, and one for those that a newer version has to carry out."""
    named = _named(stalled())
    if not named:
        yield Finding("runs", Severity.OK, f"{unfinished().count():,} not done, none stalled")
    if newer := _named(left_to_newer_version()):
        yield Finding(
            "runs",
            Severity.WARNING,
            f"written by a newer version than {__version__}, and left to it: {newer}",
            "See that a worker of that version lives. If it is gone for good: "
            "`manage.py cancel_run --of-newer-version`.",
        )
    if not named:
        return
    yield Finding(
        "runs",
        Severity.ERROR,
        f"stalled: {named}",
        "See that the broker answers and a worker lives, then `manage.py recover_runs`. "
        "What the workers' log says comes next.",
    )


def _named(runs: QuerySet[Run]) -> str:
    """Return the numbers of the oldest of these runs, such as "3, 5"; empty if there are none."""
    numbers = list(runs.order_by("pk").values_list("pk", flat=True)[: NAMED + 1])
    return ", ".join(map(str, numbers[:NAMED])) + (", ..." if len(numbers) > NAMED else "")
