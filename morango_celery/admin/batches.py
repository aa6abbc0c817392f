"""Batches: the units of the workers' tasks, and the errors that ended them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from django.contrib import admin
from django.db.models import F, QuerySet
from django.http import HttpRequest
from django.utils.html import format_html_join
from django.utils.safestring import mark_safe
from typing_extensions import override

from morango_celery.admin.links import link_to_run
from morango_celery.admin.read_only import ReadOnlyAdmin
from morango_celery.admin.shortened import beginning, first_line
from morango_celery.admin.times import moment, time_of
from morango_celery.management.formatting import counts_text, duration
from morango_celery.models import Batch, Run
from morango_celery.runs.history import past_attempts

if TYPE_CHECKING:
    from django.contrib.admin.options import _FieldsetSpec


@admin.register(Batch)
class BatchAdmin(ReadOnlyAdmin):
    list_display = [
        "number_in_stage",
        "of_run",
        "state",
        "size",
        "attempts",
        "suspicion",
        "outcome",
        "last_error_in_short",
        "worker",
        time_of("sent_at", "sent"),
        time_of("attempted_at", "begun"),
        "took",
    ]
    list_filter = ["state", "suspect", ("last_error", admin.EmptyFieldListFilter)]
    search_fields = ["last_error"]
    searched_numbers = ("run_id",)
    ordering = ["-pk"]
    fieldsets = [
        (None, {"fields": ["number_in_stage", "of_run", "state", "size", "outcome", "last_error"]}),
        (
            "Attempts",
            {"fields": ["attempts", time_of("attempted_at"), "worker", "suspicion", "lost_attempts"]},
        ),
        ("Where it is from", {"fields": ["stage_models", "pass_number", "split_from", "offset"]}),
        ("When", {"fields": [time_of("sent_at"), time_of("finished_at"), "took"]}),
        ("Message", {"fields": ["ids_sha256"]}),
    ]

    @override
    def get_queryset(self, request: HttpRequest) -> QuerySet[Any]:
        batches: QuerySet[Any] = super().get_queryset(request)
        batches = batches.annotate(
            last_error_begins=beginning("last_error"),
            run_state=F("run__state"),
            run_paused=F("run__paused"),
            run_error_begins=beginning("run__error"),
        )
        return batches.defer("ids_json", "retryable_ids", "code_edits", "last_error")  # up to 2,000 ids each

    @override
    def get_fieldsets(self, request: HttpRequest, obj: Any = None) -> _FieldsetSpec:
        shown = list(super().get_fieldsets(request, obj))
        if obj is not None and obj.is_open:
            shown[0] = (None, {"fields": [*shown[0][1]["fields"], "reason_to_be_open"]})
        return shown

    @admin.display(description="stage / batch", ordering="stage")
    def number_in_stage(self, batch: Any) -> str:
        return f"{batch.stage} / {batch.number}"

    @admin.display(description="run", ordering="run_id")
    def of_run(self, batch: Any) -> str:
        return link_to_run(batch.run_id)

    @admin.display(description="suspect", ordering="suspect")
    def suspicion(self, batch: Any) -> str:
        return "one more attempt that fails splits it" if batch.suspect and batch.is_open else ""

    @admin.display(ordering="failed")
    def outcome(self, batch: Any) -> str:
        return counts_text(batch)

    @admin.display(description="attempts that came to no result", empty_value="none")
    def lost_attempts(self, batch: Any) -> str:
        lines = (
            (moment(past.begun_at), moment(past.noted_at), past.worker, past.reason)
            for past in past_attempts(batch)
        )
        return format_html_join(mark_safe("<br>"), "{} to {}, {}: {}", lines)

    @admin.display(description="time", empty_value="")
    def took(self, batch: Any) -> str | None:
        if batch.attempted_at is None or batch.finished_at is None:
            return None
        return duration((batch.finished_at - batch.attempted_at).total_seconds())

    @admin.display(description="last error", empty_value="")
    def last_error_in_short(self, batch: Any) -> str:
        return first_line(batch.last_error_begins) or _end_of_run(batch)

    @admin.display(description="why it is open")
    def reason_to_be_open(self, batch: Any) -> str:
        if end := _end_of_run(batch):
            return (
                f"{end}. Nobody executes it any more: its records wait for `manage.py retry_run`, or a sync."
            )
        if batch.run_paused:
            return "A pause holds its run."
        if batch.attempted_by:
            return "A worker has begun it."
        if Batch.objects.filter(Batch.has_to_wait(), pk=batch.pk).exists():
            return "It waits for another batch, which comes before it."
        return "It waits for a worker."


def _end_of_run(batch: Any) -> str:
    """Return like "run 12 failed: IntegrityError: ..." for an open batch of a run that has ended; else ""."""
    if not batch.is_open or batch.run_state not in Run.ENDED:
        return ""
    if batch.run_state == Run.State.FAILED:
        return f"run {batch.run_id} failed: {first_line(batch.run_error_begins).rstrip('.')}"
    return f"run {batch.run_id} was {batch.run_state}"
