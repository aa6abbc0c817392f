"""The page of this moment: what waits, what runs, who works, and what has failed lately.

Each part is found out by itself, with a time limit. A part that can't be found out says so, and the others
are shown.
"""

from __future__ import annotations

import datetime
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

from django.core.exceptions import PermissionDenied
from django.db.models import Count, Min, Q, QuerySet
from django.http import HttpRequest, HttpResponse
from django.template.response import TemplateResponse
from django.utils import timezone
from morango.models.core import Store

from morango_celery import api, clock
from morango_celery.admin.links import link_to_run
from morango_celery.admin.run_list import with_status
from morango_celery.admin.sql import time_limit
from morango_celery.admin.syncs import filter_in_short, sync_in_short, syncs_of
from morango_celery.admin.times import moment
from morango_celery.errors import TransientError
from morango_celery.management.formatting import duration, number_of
from morango_celery.messaging.queue_length import queue_length
from morango_celery.models import Run
from morango_celery.runs.dry_run import speed_of
from morango_celery.runs.pausing import in_force, in_words
from morango_celery.runs.workers import live_workers, signs_of_workers

REFRESH_SECONDS = 5
QUERY_SECONDS = 2.0
"""Time limit of the database for each part."""
BROKER_SECONDS = 0.5
"""Time limit for the connection to the broker, and for each of its answers."""
SHOWN_RUNS = 10
LATELY_HOURS = 24

HEADINGS = ("run", "records", "facility", "sync", "since", "time")


@dataclass(frozen=True)
class Part:
    """A part of the page, or the reason why it can't be found out."""

    heading: str
    items: Sequence[Any] = field(default_factory=tuple)
    """Lines, or rows of a table."""
    problem: str = ""


def now_page(model_admin: Any, request: HttpRequest) -> HttpResponse:
    """Show what goes on at this moment; the page refreshes itself.

    :raises PermissionDenied: the user may not see runs
    Cost: at most seventeen queries, with a time limit for each part, and three requests to the broker.
    """
    if not model_admin.has_view_permission(request):
        raise PermissionDenied
    lately = f"Failed in {LATELY_HOURS} hours"
    running = _tried("Running", lambda: _newest(Q(state=Run.State.RUNNING)))
    context = {
        **model_admin.admin_site.each_context(request),
        "title": "Now",
        "opts": model_admin.model._meta,
        "media": model_admin.media,
        "refresh_seconds": REFRESH_SECONDS,
        "now": moment(timezone.now()),
        "tiles": [
            _tried("Waiting", lambda: _waiting(running.items)),
            _tried("Running", _running),
            _tried("Workers", _workers),
            _tried("Queue", _queue),
            _tried(lately, _failures),
        ],
        "pauses": _tried("Pauses", _pauses),
        "headings": HEADINGS,
        "tables": [
            running,
            _tried("Waiting, the first to come", lambda: _rows(_pending().order_by("pk"))),
            _tried(lately, lambda: _newest(_failed_lately())),
        ],
    }
    return TemplateResponse(request, "admin/morango_celery/run/now.html", context)


def _tried(heading: str, find: Callable[[], Sequence[Any]]) -> Part:
    try:
        with time_limit(QUERY_SECONDS):
            return Part(heading, find())
    except TransientError as error:
        return Part(heading, problem=f"Not known: {error}")


def _pauses() -> Sequence[str]:
    pauses = in_force()
    return [in_words(pauses)] if pauses else []


def _waiting(running: Sequence[Any]) -> Sequence[str]:
    """Return lines about what waits, with an estimate of its end."""
    dirty = Store.objects.filter(dirty_bit=True, deserialization_exception=None)
    records = dirty.count()
    found = _pending().aggregate(
        number=Count("pk"), oldest=Min("created_at"), paused=Count("pk", filter=Q(paused=True))
    )
    lines = [number_of(records, "record"), f"of {number_of(found['number'], 'sync or run', 'syncs or runs')}"]
    if found["oldest"]:
        lines.append(f"the oldest for {duration(_age_seconds(found['oldest']))}")
    if found["paused"]:
        lines.append(f"{found['paused']:,} of them paused")
    elif records and not (running or found["number"]):
        lines.append("No run is to take them: the next sync does, or a retry of one that failed.")
    elif records:
        lines.append(_end_of(records, running))
    return lines


def _end_of(records: int, running: Sequence[Any]) -> str:
    """Return an estimate by the speed of the runs that go on; if there are none, by that of the last ones."""
    per_second = sum(row["speed"] or 0.0 for row in running) or speed_of(Run.objects.all())[0]
    if not per_second:
        return "its end can't be estimated yet"
    seconds = records / per_second
    end = timezone.localtime(timezone.now() + datetime.timedelta(seconds=seconds))
    return f"about {duration(seconds)} left, to {end:%H:%M:%S}, at {per_second:,.0f} a second"


def _running() -> Sequence[str]:
    found = Run.objects.filter(state=Run.State.RUNNING).aggregate(
        number=Count("pk"), here=Count("pk", filter=Q(in_process=True))
    )
    lines = [number_of(found["number"], "run")]
    if found["here"]:
        lines.append(f"{found['here']:,} of them in process")
    return lines


def _workers() -> Sequence[str]:
    if api.runs_in_process():
        return ["none is needed: each process carries out its own runs"]
    signs, workers = signs_of_workers(), list(live_workers())
    if signs.are_lost():
        return ["none", "Nothing is begun until one is started."]
    lines = [number_of(len(workers), "worker")] if workers else ["at work", "Their names aren't known yet."]
    shown = [f"{each.name}, seen {duration(_age_seconds(each.seen_at))} ago" for each in workers[:SHOWN_RUNS]]
    return lines + shown + ([f"and {len(workers) - SHOWN_RUNS:,} more"] if len(workers) > SHOWN_RUNS else [])


def _queue() -> Sequence[str]:
    if api.runs_in_process():
        return ["none"]
    return [number_of(queue_length(BROKER_SECONDS), "message")]


def _failures() -> Sequence[str]:
    in_error = Store.objects.filter(dirty_bit=True).exclude(deserialization_exception=None).count()
    failed = Run.objects.filter(_failed_lately(), state=Run.State.FAILED).count()
    return [number_of(failed, "run"), f"{number_of(in_error, 'record')} in error now"]


def _failed_lately() -> Q:
    lately = Q(finished_at__gte=clock.now(-LATELY_HOURS * 3600))
    return lately & (Q(state=Run.State.FAILED) | Q(failed__gt=0))


def _pending() -> QuerySet[Run]:
    return Run.objects.filter(state=Run.State.PENDING)


def _newest(condition: Q) -> Sequence[dict[str, Any]]:
    return _rows(Run.objects.filter(condition).order_by("-pk"))


def _rows(found: QuerySet[Run]) -> Sequence[dict[str, Any]]:
    """Return the first of these runs, as the tables show them. Cost: four queries."""
    runs = with_status(list(found.values_list("pk", flat=True)[:SHOWN_RUNS]), in_short=True)
    syncs = syncs_of(runs)
    return [_row(run, syncs.get(run.pk)) for run in runs]


def _row(run: Any, sync: Any) -> dict[str, Any]:
    status = run.status
    left = "" if status.seconds_left is None else f"about {duration(status.seconds_left)} left"
    return {
        "speed": status.records_per_second,
        "state": status.state,
        "note": run.sharing or left or run.error_begins.partition("\n")[0],
        "failed": f"{run.failed:,} failed" if run.failed else "",
        "done": run.done,
        "total": max(status.total, 1),
        "has_ended": run.has_ended,
        "cells": (
            link_to_run(run.pk),
            f"{run.done:,} of {status.total:,}",
            filter_in_short(run),
            sync_in_short(run, sync),
            moment(run.started_at or run.created_at),
            duration(status.seconds if status.seconds is not None else _age_seconds(run.created_at)),
        ),
    }


def _age_seconds(time: datetime.datetime) -> float:
    return max((timezone.now() - time).total_seconds(), 0.0)
