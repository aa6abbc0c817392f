"""The operator's actions on runs: the same as from a shell."""

from __future__ import annotations

from typing import Any

from django.contrib import admin, messages
from django.contrib.admin.helpers import ACTION_CHECKBOX_NAME
from django.http import HttpRequest, HttpResponse
from django.template.response import TemplateResponse
from morango.models.certificates import Filter

from morango_celery import api
from morango_celery.admin.messages import errors_as_messages, message_started
from morango_celery.models import Run

MAX_AT_ONCE = 100


@admin.action(description="Cancel the selected runs", permissions=["operate"])
def cancel(model_admin: Any, request: HttpRequest, selected: Any) -> HttpResponse | None:
    runs = _chosen(request, selected)
    if not runs:
        return None
    if "confirmed" not in request.POST:
        return _confirmation(model_admin, request, runs)
    for run in runs:
        with errors_as_messages(request):
            ended = api.cancel(run.pk)
            model_admin.log_change(request, ended, "Cancelled.")
            messages.success(
                request,
                f"Run {ended.pk} is cancelled; {ended.done:,} of {ended.records:,} records that were handed "
                "out are done. What is being executed is completed, the rest stays dirty.",
            )
    return None


@admin.action(description="Resend open batches of the selected runs", permissions=["operate"])
def resend_open_batches(model_admin: Any, request: HttpRequest, selected: Any) -> None:
    runs = _chosen(request, selected)
    for run in runs:
        if not run.is_known:
            messages.warning(request, run.of_newer_version)
    unfinished = [run for run in runs if run.is_known and not run.has_ended and not run.in_process]
    if runs and not unfinished:
        messages.warning(request, "Nothing to send: none of these runs is one that workers still carry out.")
    if not unfinished:
        return
    ids = [run.pk for run in unfinished]
    with errors_as_messages(request):
        sent = api.recover_runs(all_unfinished=True, run_ids=ids)
        if sent:
            for run in unfinished:
                model_admin.log_change(request, run, "Resent open batches.")
            messages.success(request, f"{sent:,} messages sent. What is sent twice is done once.")
        elif Run.objects.filter(pk__in=ids, state__in=Run.UNFINISHED).exists():
            messages.error(
                request,
                "Nothing was sent: the broker can't be reached. Nothing is lost; once it is back, workers "
                "take what is open.",
            )
        else:
            messages.warning(request, "Nothing to send: they have ended meanwhile.")


@admin.action(description="Retry the selected runs", permissions=["operate"])
def retry_run(model_admin: Any, request: HttpRequest, selected: Any) -> None:
    for run in _chosen(request, selected):
        with errors_as_messages(request):
            message_started(model_admin, request, api.retry(run.pk), f"retries run {run.pk}")


@admin.action(description="Retry failed records under the selected runs' filters", permissions=["operate"])
def retry_failed_records(model_admin: Any, request: HttpRequest, selected: Any) -> None:
    tasks: dict[tuple[str, str | None], int] = {}
    for run in _chosen(request, selected):
        tasks.setdefault((run.profile, run.filter), run.pk)
    for (profile, prefixes), run_id in tasks.items():
        sync_filter = None if prefixes is None else Filter(prefixes)
        with errors_as_messages(request):
            begun = api.deserialize(profile, sync_filter, retry_errors=True)
            message_started(
                model_admin, request, begun, f"retries failed records under the filter of run {run_id}"
            )


OFFERED = {
    False: {"cancel": "Cancel", "resend_open_batches": "Resend open batches"},
    True: {"retry_failed_records": "Retry failed records", "retry_run": "Retry run"},
}
"""Actions on a run's own page and the texts of their buttons, by whether the run has ended."""


def _chosen(request: HttpRequest, selected: Any) -> list[Run]:
    """Return the selected runs; none, with a message, if they are too many or have left the list."""
    runs = list(selected.defer("error")[: MAX_AT_ONCE + 1])
    if not runs:
        messages.warning(request, "Nothing was done: the selected runs don't fit the list's filter any more.")
    if len(runs) > MAX_AT_ONCE:
        messages.error(request, f"Nothing was done: select {MAX_AT_ONCE} runs at most.")
        return []
    return runs


def _confirmation(model_admin: Any, request: HttpRequest, runs: list[Run]) -> HttpResponse:
    context = {
        **model_admin.admin_site.each_context(request),
        "title": "Cancel runs?",
        "opts": model_admin.model._meta,
        "runs": runs,
        "checkbox_name": ACTION_CHECKBOX_NAME,
    }
    return TemplateResponse(request, "admin/morango_celery/run/cancel_confirmation.html", context)
