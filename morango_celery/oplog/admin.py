"""Admin page of the dead letters of another project's log."""

from __future__ import annotations

from typing import Any

from django.contrib import admin, messages
from django.http import HttpRequest
from typing_extensions import override

from morango_celery.admin.shortened import beginning, first_line
from morango_celery.oplog.models import DeadLetter
from morango_celery.oplog.retry import retry_dead_letters


@admin.register(DeadLetter)
class DeadLetterAdmin(admin.ModelAdmin):  # type: ignore[type-arg]  # Django 3.2's takes no parameter
    """Lines of a log that couldn't be applied, to be read and retried."""

    list_display = ["path", "offset", "source", "state", "reason_in_short", "attempts", "created_at"]
    list_filter = ["state", "source", "created_at"]
    search_fields = ["text", "reason", "path"]
    ordering = ["-pk"]
    fields = readonly_fields = [
        "source",
        "path",
        "offset",
        "text",
        "reason",
        "missing_object",
        "state",
        "attempts",
        "created_at",
        "resolved_at",
    ]
    actions = ["retry"]

    @override
    def get_queryset(self, request: HttpRequest) -> Any:
        letters = super().get_queryset(request).annotate(reason_begins=beginning("reason"))
        return letters.defer("text", "reason")  # megabytes, where a line is long

    @admin.display(description="reason")
    def reason_in_short(self, letter: Any) -> str:
        return first_line(letter.reason_begins)

    @admin.action(description="Retry the selected lines", permissions=["retry"])
    def retry(self, request: HttpRequest, letters: Any) -> None:
        retried = retry_dead_letters(letter_ids=list(letters.values_list("pk", flat=True)))
        level = messages.WARNING if retried.left else messages.SUCCESS
        self.message_user(request, f"{retried.applied} applied, {retried.left} still can't be.", level)

    def has_retry_permission(self, request: HttpRequest) -> bool:
        return request.user.has_perm("morango_celery_oplog.change_deadletter")

    @override
    def has_add_permission(self, request: HttpRequest) -> bool:
        return False

    @override
    def has_change_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        """Forbid changes: a line is a copy of the log. Faults are mended at the source or in the database."""
        return False
