"""The page with a run's timeline: a drawing, and the same as tables."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from django.core.exceptions import PermissionDenied
from django.http import Http404, HttpRequest, HttpResponse
from django.template.response import TemplateResponse

from morango_celery.admin.sql import time_limit
from morango_celery.admin.timeline_drawing import drawing, stage_name
from morango_celery.admin.times import moment
from morango_celery.errors import QueryTimeoutError
from morango_celery.management.formatting import duration, number_of
from morango_celery.models import Run
from morango_celery.runs.timeline import MAX_TROUBLED, StageSpan, Timeline, Work, timeline

READING_SECONDS = 10.0
REFRESH_SECONDS = 5

STAGE_HEADINGS = ("stage", "batches", "records", "failed", "begun", "time", "waited for it")
LOST_HEADINGS = ("batch", "records", "worker", "begun", "its end noted", "reason")


def timeline_page(model_admin: Any, request: HttpRequest, run_id: int) -> HttpResponse:
    """Show the timeline of a run; while the run goes on, the page is fetched anew.

    :raises PermissionDenied: the user may not see runs
    :raises Http404: there is no such run
    Cost: five queries.
    """
    if not model_admin.has_view_permission(request):
        raise PermissionDenied
    run = Run.objects.filter(pk=run_id).first()
    if run is None:
        raise Http404(f"The ledger has no run {run_id}.")
    context = {
        **model_admin.admin_site.each_context(request),
        "title": f"Timeline of run {run.pk}",
        "opts": model_admin.model._meta,
        "media": model_admin.media,
        "original": run,
        "stage_headings": STAGE_HEADINGS,
        "lost_headings": LOST_HEADINGS,
    }
    try:
        with time_limit(READING_SECONDS):
            found = timeline(run)
    except QueryTimeoutError as error:
        context["problem"] = str(error)
    else:
        summary = _summary(found)
        context |= {
            "drawing": drawing(found, summary),
            "summary": summary,
            "stages": list(_stage_rows(found)),
            "lost": [_lost_row(work) for work in found.lost_attempts[:MAX_TROUBLED]],
        }
    response = TemplateResponse(request, "admin/morango_celery/run/timeline.html", context)
    if not run.has_ended:
        response["Refresh"] = str(REFRESH_SECONDS)
    return response


def _summary(found: Timeline) -> str:
    """Return the timeline in words."""
    run = found.run
    begun = run.started_at
    took = duration(max((found.end - (begun or found.begin)).total_seconds(), 0.0))
    if begun is None:
        first = f"Run {run.pk} is {run.state} and has waited for {took}."
    else:
        waited = duration(max((begun - found.begin).total_seconds(), 0.0))
        first = f"Run {run.pk} is {run.state}. It waited for {waited}, and took {took}."
    batches = number_of(sum(stage.batches for stage in found.stages), "batch", "batches")
    lost = len(found.lost_attempts)
    if found.workers:
        batches += f", by {number_of(len(found.workers), 'process', 'processes')} of workers"
    more = " Batches without trouble are summed up by stage and worker." if found.is_summed_up else ""
    return f"{first} {batches}; {number_of(lost, 'attempt')} came to no result.{more}"


def _stage_rows(found: Timeline) -> Iterator[tuple[str, ...]]:
    before = found.run.started_at
    for stage in found.stages:
        yield (
            stage_name(stage),
            f"{stage.batches:,}{f', {stage.open:,} open' if stage.open else ''}",
            f"{stage.records:,}",
            f"{stage.failed:,}",
            moment(stage.begun_at),
            _seconds(stage),
            ""
            if stage.begun_at is None or before is None
            else duration(max((stage.begun_at - before).total_seconds(), 0.0)),
        )
        before = stage.ended_at


def _seconds(stage: StageSpan) -> str:
    if stage.begun_at is None or stage.ended_at is None:
        return ""
    return duration(max((stage.ended_at - stage.begun_at).total_seconds(), 0.0))


def _lost_row(work: Work) -> tuple[str, ...]:
    return (
        f"{work.stage}/{work.number}",
        f"{work.records:,}",
        work.worker,
        moment(work.begun_at),
        moment(work.ended_at),
        f"{work.reason}{'; the batch was split' if work.split else ''}",
    )
