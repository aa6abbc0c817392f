"""Records in error, by exception and one by one. Their contents are never shown."""

from __future__ import annotations

from itertools import groupby
from typing import Any

from django.contrib import admin, messages
from django.db.models import QuerySet
from django.db.models.functions import Left
from django.http import HttpRequest, HttpResponse, HttpResponseRedirect
from django.urls import URLPattern, path, reverse
from django.utils.html import format_html
from typing_extensions import override

from morango_celery import api
from morango_celery.admin.error_filters import UnderTheFilterOfRun, filters
from morango_celery.admin.error_groups import groups_page, retry
from morango_celery.admin.messages import errors_as_messages, message_started
from morango_celery.admin.read_only import ReadOnlyAdmin
from morango_celery.admin.sql import time_limit
from morango_celery.deserialization.quarantine import QUARANTINED
from morango_celery.errors import QueryTimeoutError
from morango_celery.models import RecordInError
from morango_celery.runs.roots import CAUSE

LISTING_SECONDS = 10.0
"""Time limit of the database for a page of rows."""
MAX_PARTITIONS = 100
SHOWN_CHARACTERS = 200
"""Number of an error's characters that the list shows."""


@admin.action(
    description="Retry failed records in the partitions of the selected records",
    permissions=["operate"],
)
def retry_partitions(model_admin: Any, request: HttpRequest, records: Any) -> None:
    found = records.order_by().values_list("profile", "partition").distinct()[: MAX_PARTITIONS + 1]
    partitions = sorted(found)
    if not partitions:
        messages.warning(request, "Nothing was done: the selected records are not in error any more.")
    if len(partitions) > MAX_PARTITIONS:
        messages.error(
            request,
            f"Nothing was done: the selected records lie in more than {MAX_PARTITIONS} partitions. Select "
            "fewer, or retry all failed records of the profile.",
        )
        return
    for profile, of_profile in groupby(partitions, key=lambda row: row[0]):
        prefixes = [partition for _, partition in of_profile]
        with errors_as_messages(request):
            run = api.deserialize(profile, prefixes, retry_errors=True)
            count = len(prefixes)
            where = "1 partition" if count == 1 else f"{count} partitions"
            message_started(model_admin, request, run, f"retries failed records in {where} of {profile}")


@admin.register(RecordInError)
class RecordInErrorAdmin(ReadOnlyAdmin):
    """Begins with the groups; `rows/` is the usual list."""

    list_display = ["id", "model_name", "exception_in_short", "error_in_short", "partition", "profile"]
    search_fields = ["deserialization_error", "partition"]
    searched_ids = ("pk",)
    # No index has this order, or PostgreSQL might walk through it past all rows that are not in error
    ordering = ["model_name", "deserialization_exception", "pk"]
    actions = [retry_partitions]
    fields = [
        "id",
        "profile",
        "model_name",
        "partition",
        "deserialization_exception",
        "deserialization_error",
        "deleted",
        "hard_deleted",
        "last_saved_instance",
        "last_saved_counter",
        "last_transfer_session_id",
    ]

    @override
    def get_urls(self) -> list[URLPattern]:
        wrapped = self.admin_site.admin_view
        return [
            path("", wrapped(self.groups_view)),  # which the usual list's name leads to
            path("rows/", wrapped(self.changelist_view), name="morango_celery_recordinerror_rows"),
            path("retry/", wrapped(self.retry_view), name="morango_celery_recordinerror_retry"),
            *super().get_urls(),
        ]

    def groups_view(self, request: HttpRequest) -> HttpResponse:
        return groups_page(self, request)

    def retry_view(self, request: HttpRequest) -> HttpResponse:
        return retry(self, request)

    @override
    def changelist_view(self, request: HttpRequest, extra_context: Any = None) -> HttpResponse:
        if request.method == "POST":  # what actions begin mustn't wait for the end of a transaction
            return super().changelist_view(request, extra_context)
        try:
            with time_limit(LISTING_SECONDS):
                return super().changelist_view(request, extra_context)
        except QueryTimeoutError as error:
            messages.error(request, f"{error} Choose a group, or search for less.")
            return HttpResponseRedirect(reverse("admin:morango_celery_recordinerror_changelist"))

    @override
    def get_list_filter(self, request: HttpRequest) -> list[Any]:
        return filters()

    @override
    def lookup_allowed(self, lookup: str, value: str, request: HttpRequest | None = None) -> bool:
        """Allow the list's filters alone: others would reveal the contents of records, bit by bit."""
        return lookup in (*CAUSE, UnderTheFilterOfRun.parameter_name)

    @override
    def get_queryset(self, request: HttpRequest) -> QuerySet[Any]:
        records: QuerySet[Any] = super().get_queryset(request)
        beginning = Left("deserialization_error", SHOWN_CHARACTERS + 1)  # the whole may have megabytes
        records = records.annotate(error_begins=beginning)
        return records.defer("serialized", "conflicting_serialized_data", "deserialization_error")

    @admin.display(description="exception", ordering="deserialization_exception")
    def exception_in_short(self, record: Any) -> str:
        exception = record.deserialization_exception
        note = " (quarantined)" if exception == QUARANTINED else ""
        return format_html('<span title="{}">{}{}</span>', exception, exception.rpartition(".")[2], note)

    @admin.display(description="error")
    def error_in_short(self, record: Any) -> str:
        error: str = record.error_begins or ""
        return error if len(error) <= SHOWN_CHARACTERS else f"{error[: SHOWN_CHARACTERS - 1]}…"
