"""Comparisons of syncs with Morango's own function, made in mode ``compare``: their results."""

from __future__ import annotations

from typing import Any

from django.contrib import admin
from django.db.models import QuerySet
from django.http import HttpRequest
from django.utils.html import format_html, format_html_join
from typing_extensions import override

from morango_celery.admin.read_only import ReadOnlyAdmin
from morango_celery.admin.shortened import beginning, first_line
from morango_celery.admin.times import time_of
from morango_celery.models import Comparison

FIDELITY = "docs/fidelity.md"


class Differences(admin.SimpleListFilter):
    title = "differences"
    parameter_name = "differences"

    @override
    def lookups(self, request: HttpRequest, model_admin: Any) -> list[tuple[str, str]]:
        return [("yes", "with differences"), ("no", "the same, or documented")]

    @override
    def queryset(self, request: HttpRequest, queryset: QuerySet[Comparison]) -> QuerySet[Comparison]:
        match self.value():
            case "yes":
                return queryset.filter(differences__gt=0)
            case "no":
                return queryset.filter(differences=0)
        return queryset


@admin.register(Comparison)
class ComparisonAdmin(ReadOnlyAdmin):
    list_display = [
        "number",
        "result",
        "profile",
        "records",
        "differences",
        "documented",
        "error_in_short",
        time_of("created_at", "created"),
        "transfer_session_id",
    ]
    list_filter = ["state", Differences, ("profile", admin.AllValuesFieldListFilter), "created_at"]
    search_fields = ["error"]
    searched_numbers = ("pk",)
    searched_ids = ("transfer_session_id",)
    ordering = ["-pk"]
    fieldsets = [
        (None, {"fields": ["result", "records", "differences", "documented", "error"]}),
        ("Rows that differ", {"fields": ["examples"]}),
        ("Records by model", {"fields": ["models"]}),
        ("Documented differences", {"fields": ["reasons"]}),
        ("Sync", {"fields": ["profile", "filter", "transfer_session_id"]}),
        ("When", {"fields": list(map(time_of, ("created_at", "sent_at", "started_at", "finished_at")))}),
    ]

    @override
    def get_queryset(self, request: HttpRequest) -> QuerySet[Any]:
        comparisons: QuerySet[Any] = super().get_queryset(request)
        comparisons = comparisons.annotate(error_begins=beginning("error"))
        return comparisons.defer("report", "error")

    @admin.display(description="comparison", ordering="pk")
    def number(self, comparison: Comparison) -> int:
        return comparison.pk

    @admin.display(ordering="state")
    def result(self, comparison: Comparison) -> str:
        if comparison.state != Comparison.State.COMPLETED:
            return format_html('<span class="morango-{}">{}</span>', comparison.state, comparison.state)
        is_same = not comparison.differences
        kind, text = ("completed", "same") if is_same else ("failed", "different")
        return format_html('<span class="morango-{}">{}</span>', kind, text)

    @admin.display(description="error", empty_value="")
    def error_in_short(self, comparison: Any) -> str:
        return first_line(comparison.error_begins)

    @admin.display(empty_value="none")
    def examples(self, comparison: Comparison) -> str | None:
        found = (comparison.report or {}).get("examples", [])
        lines = (
            (
                example["table"],
                example["row"],
                example["kind"],
                ", ".join(example["columns"]),
                example["documented"] or "not documented",
            )
            for example in found
        )
        return format_html(
            '<ul class="morango-errors">{}</ul>',
            format_html_join("", "<li>{} {}: {} {} ({})</li>", lines),
        )

    @admin.display
    def models(self, comparison: Comparison) -> str:
        found = (comparison.report or {}).get("models", [])
        lines = ((model["model"], f"{model['records']:,}", *_sides(model)) for model in found)
        return format_html(
            '<ul class="morango-errors">{}</ul>',
            format_html_join("", "<li>{}: {} records; Morango {}; morango_celery {}</li>", lines),
        )

    @admin.display
    def reasons(self, comparison: Comparison) -> str:
        found = (comparison.report or {}).get("documented", {})
        lines = ((FIDELITY, name, f"{number:,}") for name, number in found.items())
        return format_html(
            '<ul class="morango-errors">{}</ul>', format_html_join("", "<li>{}#{}: {} rows</li>", lines)
        )


def _sides(model: dict[str, Any]) -> tuple[str, str]:
    morango, ours = (
        ", ".join(f"{number:,} {outcome}" for outcome, number in model[side].items() if number)
        for side in ("morango", "ours")
    )
    return morango, ours
