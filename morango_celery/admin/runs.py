"""Runs: their progress, speed and results."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from django.contrib import admin
from django.contrib.messages import get_messages
from django.http import HttpRequest, HttpResponse
from django.urls import URLPattern, path
from django.utils.html import format_html, format_html_join
from typing_extensions import override

from morango_celery.admin.explained_models import models_page
from morango_celery.admin.links import link_to_run, roots_in_words, url_of_batches, url_of_rows
from morango_celery.admin.now import now_page
from morango_celery.admin.read_only import ReadOnlyAdmin
from morango_celery.admin.run_actions import (
    OFFERED,
    cancel,
    resend_open_batches,
    retry_failed_records,
    retry_run,
)
from morango_celery.admin.run_list import COUNTING_SECONDS, OfFacility, RunList, SignsOfLife, with_status
from morango_celery.admin.shortened import first_line
from morango_celery.admin.sql import time_limit
from morango_celery.admin.syncs import filter_in_short, sync_in_short, syncs_of
from morango_celery.admin.timeline import timeline_page
from morango_celery.admin.times import time_of
from morango_celery.errors import QueryTimeoutError
from morango_celery.management.formatting import counts_text, duration, left_text
from morango_celery.models import Run
from morango_celery.runs.pausing import in_force, in_words
from morango_celery.runs.report import failures
from morango_celery.runs.status import count_left

if TYPE_CHECKING:
    from django.contrib.admin.options import _FieldsetSpec

REFRESH_SECONDS = 5

OPTIONS = {
    "serialize_first": "merges local edits first",
    "skip_erroring": "leaves out what was in error",
    "retry_errors": "takes only what was in error",
    "in_process": "in process, without workers",
}


@admin.register(Run)
class RunAdmin(ReadOnlyAdmin):
    """The list, and a page for each, which is fetched anew for as long as the run goes on."""

    list_display = [
        "number",
        "state_in_words",
        "progress_in_words",
        "facility",
        "sync_in_short",
        "outcome",
        "error_in_short",
        time_of("created_at", "created"),
        "took",
    ]
    list_filter = [
        "state",
        SignsOfLife,
        OfFacility,
        ("profile", admin.AllValuesFieldListFilter),
        "created_at",
    ]
    search_fields = ["error", "filter"]
    searched_numbers = ("pk",)
    searched_ids = ("transfer_session_id",)
    ordering = ["-pk"]
    actions = [cancel, resend_open_batches, retry_run, retry_failed_records]
    fieldsets = [
        (None, {"fields": ["signs_of_life", "progress_in_words", "outcome", "error"]}),
        (
            "Request",
            {"fields": ["profile", "filter", "options", "from_sync", "transfer_session_id", "retried_run"]},
        ),
        (
            "Progress",
            {"fields": ["shared_work", "stage", "stage_models", "batches", "pass_number", "attempts"]},
        ),
        (
            "Times",
            {
                "fields": [
                    *map(time_of, ("created_at", "sent_at", "started_at", "last_activity_at", "finished_at")),
                    "took",
                ]
            },
        ),
        ("After its end", {"fields": ["session_notified", "finalized"]}),
    ]

    @override
    def get_urls(self) -> list[URLPattern]:
        models_view = self.admin_site.admin_view(self.models_view)
        now_view = self.admin_site.admin_view(self.now_view)
        return [
            path("models/", models_view, name="morango_celery_run_models"),
            path(
                "<int:run_id>/timeline/",
                self.admin_site.admin_view(self.timeline_view),
                name="morango_celery_run_timeline",
            ),
            path("now/", now_view, name="morango_celery_run_now"),
            *super().get_urls(),
        ]

    def models_view(self, request: HttpRequest) -> HttpResponse:
        return models_page(self, request)

    def now_view(self, request: HttpRequest) -> HttpResponse:
        return now_page(self, request)

    def timeline_view(self, request: HttpRequest, run_id: int) -> HttpResponse:
        return timeline_page(self, request, run_id)

    @override
    def get_changelist(self, request: HttpRequest, **kwargs: Any) -> type[RunList]:
        return RunList

    @override
    def changelist_view(self, request: HttpRequest, extra_context: Any = None) -> HttpResponse:
        pauses = in_force()
        more = {"pauses": pauses and in_words(pauses)}
        return super().changelist_view(request, {**more, **(extra_context or {})})

    @override
    def get_object(self, request: HttpRequest, object_id: str, from_field: str | None = None) -> Any:
        run = super().get_object(request, object_id, from_field)
        found = next(iter(with_status([run.pk])), None) if run else None
        if found is not None:
            found.sync = syncs_of([found]).get(found.pk)
        return found

    @override
    def get_fieldsets(self, request: HttpRequest, obj: Any = None) -> _FieldsetSpec:
        shown = list(super().get_fieldsets(request, obj))
        if obj is not None and obj.state in (Run.State.FAILED, Run.State.CANCELLED):
            shown[0] = (None, {"fields": [*shown[0][1]["fields"], "left_records"]})
        if request.user.has_perm("morango_celery.view_recordinerror"):
            return [*shown[:1], ("In error now, under its filter", {"fields": ["in_error_now"]}), *shown[1:]]
        return shown

    @override
    def render_change_form(
        self,
        request: HttpRequest,
        context: dict[str, Any],
        add: bool = False,
        change: bool = False,
        form_url: str = "",
        obj: Any = None,
    ) -> HttpResponse:
        context["offered"] = OFFERED[obj.has_ended] if self.has_operate_permission(request) else {}
        response = super().render_change_form(request, context, add, change, form_url, obj)
        if not obj.has_ended and not len(get_messages(request)):  # a message would be gone after that
            response["Refresh"] = str(REFRESH_SECONDS)
        return response

    @admin.display(description="run", ordering="pk")
    def number(self, run: Any) -> int:
        number: int = run.pk
        return number

    @admin.display(description="state", ordering="state")
    def state_in_words(self, run: Any) -> str:
        state = run.status.state
        return format_html('<span class="morango-{}">{}</span>', state, state)

    def progress(self, run: Any) -> str:
        done, total = run.done, run.status.total
        if run.has_ended:
            return f"{done:,}" if done == total else f"{done:,} of {total:,}"
        return format_html(
            '<progress max="{}" value="{}"></progress> {} of {}{}',
            max(total, 1),
            done,
            f"{done:,}",
            f"{total:,}",
            " so far" if run.status.waiting is None else "",
        )

    def speed(self, run: Any) -> str | None:
        speed = run.status.records_per_second
        return speed and f"{speed:,.{0 if speed >= 10 else 1}f}"

    def time_left(self, run: Any) -> str | None:
        seconds = run.status.seconds_left
        return None if seconds is None else duration(seconds)

    @admin.display(ordering="failed")
    def outcome(self, run: Any) -> str:
        return counts_text(run)

    @admin.display(description="state")
    def signs_of_life(self, run: Any) -> str:
        sign = "ended" if run.has_ended else "last sign of life"
        ago = duration(run.status.idle_seconds)
        return format_html("{}; {} {} ago", self.state_in_words(run), sign, ago)

    @admin.display(description="records", ordering="records")
    def progress_in_words(self, run: Any) -> str:
        speed, left = self.speed(run), self.time_left(run)
        return format_html(
            "{}{}{}",
            self.progress(run),
            f"; {speed} a second" if speed else "",
            f", about {left} left" if left else "",
        )

    @admin.display(empty_value="")
    def options(self, run: Any) -> str:
        chosen = [text for name, text in OPTIONS.items() if getattr(run, name)]
        chosen += [f"of the model {run.only_model}"] if run.only_model else []
        chosen += [f"with {run.only_exception}"] if run.only_exception else []
        return ", ".join(chosen)

    @admin.display(description="facility", ordering="filter")
    def facility(self, run: Any) -> str:
        return format_html("{}<br>{}", filter_in_short(run), run.profile)

    @admin.display(description="sync", ordering="transfer_session_id")
    def sync_in_short(self, run: Any) -> str:
        return sync_in_short(run, run.sync)

    @admin.display(description="sync", empty_value="none, or its session is gone")
    def from_sync(self, run: Any) -> str | None:
        sync = run.sync
        return sync and f"{sync.direction} {sync.device or 'an unknown device'} {sync.device_id}".strip()

    @admin.display(description="time", empty_value="")
    def took(self, run: Any) -> str | None:
        seconds = run.status.seconds
        return None if seconds is None else duration(seconds)

    @admin.display(description="error", empty_value="")
    def error_in_short(self, run: Any) -> str:
        return first_line(run.error_begins)

    @admin.display(description="records that wait")
    def left_records(self, run: Any) -> str:
        try:
            with time_limit(COUNTING_SECONDS):
                count = count_left(run)
        except QueryTimeoutError as error:
            return str(error)
        return left_text(count, run) if count else "none under its filter"

    @admin.display(description="records")
    def in_error_now(self, run: Any) -> str:
        try:
            with time_limit(COUNTING_SECONDS):
                groups = failures(run)
        except QueryTimeoutError as error:
            return str(error)
        lines = (
            (
                url_of_rows(
                    run=run.pk,
                    model_name=group.model_name,
                    deserialization_exception=group.exception,
                ),
                f"{group.count:,}",
                group.model_name,
                group.title,
                group.example_error[:300],
                roots_in_words(group.roots, group.count),
            )
            for group in groups
        )
        found = format_html_join("", '<li><a href="{}">{} x {}: {}</a><br>e.g. {}{}</li>', lines)
        return format_html('<ul class="morango-errors">{}</ul>', found) if groups else "nothing"

    @admin.display(description="retry of", empty_value="no other run")
    def retried_run(self, run: Any) -> str | None:
        return run.retry_of_id and link_to_run(run.retry_of_id)

    @admin.display(empty_value="with no other run")
    def shared_work(self, run: Any) -> str | None:
        other = run.coalesced_into_id or run.blocked_by_id
        if other is not None:
            return format_html("{}: see {}", run.sharing, link_to_run(other))
        if run.coalesced_runs:
            others = "1 other run" if run.coalesced_runs == 1 else f"{run.coalesced_runs:,} other runs"
            return f"for {others} under its filter, too"
        return None

    @admin.display
    def batches(self, run: Any) -> str:
        return format_html(
            '<a href="{}">{} of this stage are open, of {}; see those of all stages</a>',
            url_of_batches(run.pk),
            f"{run.open_batches:,}",
            f"{run.stage_batches:,}",
        )
