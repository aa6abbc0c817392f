"""The page of records in error by model and exception, from which a group or a profile can be tried again."""

from __future__ import annotations

from collections import Counter
from typing import Any

from django.contrib import messages
from django.core.exceptions import PermissionDenied
from django.db.models import Count, Max
from django.db.models.functions import Left
from django.http import HttpRequest, HttpResponse, HttpResponseNotAllowed, HttpResponseRedirect
from django.template.response import TemplateResponse
from django.urls import reverse

from morango_celery import api
from morango_celery.admin.links import roots_in_words, url_of_rows
from morango_celery.admin.messages import errors_as_messages, message_started
from morango_celery.admin.sql import time_limit
from morango_celery.deserialization.quarantine import QUARANTINED
from morango_celery.errors import QueryTimeoutError
from morango_celery.models import RecordInError
from morango_celery.runs.roots import CAUSE, Cause, Root, roots_by_cause

GROUPING_SECONDS = 10.0
EXAMPLE_CHARACTERS = 300


def groups_page(model_admin: Any, request: HttpRequest) -> HttpResponse:
    """Show the records in error by model and exception.

    :raises PermissionDenied: the user may not see records in error
    """
    if not model_admin.has_view_permission(request):
        raise PermissionDenied
    groups = None
    try:
        with time_limit(GROUPING_SECONDS):
            groups = _groups()
    except QueryTimeoutError as error:
        messages.error(request, f"{error} One by one, records can be searched all the same.")
    roots: dict[Cause, list[Root]] = {}
    try:
        with time_limit(GROUPING_SECONDS):
            roots = roots_by_cause(RecordInError.objects.all()) if groups else {}
    except QueryTimeoutError as error:
        messages.warning(request, f"{error} So it isn't told which records others fail because of.")
    totals: Counter[str] = Counter()
    for group in groups or ():
        group["records"] = f"{group['count']:,}"
        group["is_quarantined"] = group["deserialization_exception"] == QUARANTINED
        group["url"] = url_of_rows(**{name: group[name] for name in CAUSE})
        group["roots"] = roots_in_words(roots.get(tuple(group[name] for name in CAUSE), ()), group["count"])
        totals[group["profile"]] += group["count"]
    context = {
        **model_admin.admin_site.each_context(request),
        "title": "Records in error",
        "opts": model_admin.model._meta,
        "media": model_admin.media,
        "headings": ("records", "profile", "model", "exception", "for example"),
        "groups": groups,
        "unknown": groups is None,
        "totals": {profile: f"{count:,}" for profile, count in sorted(totals.items())},
        "rows_url": reverse("admin:morango_celery_recordinerror_rows"),
        "may_operate": model_admin.has_operate_permission(request),
    }
    return TemplateResponse(request, "admin/morango_celery/recordinerror/groups.html", context)


def retry(model_admin: Any, request: HttpRequest) -> HttpResponse:
    """Try again all that is in error in the profile that is posted, or in one of its groups.

    :raises PermissionDenied: the user may not
    """
    if not model_admin.has_operate_permission(request):
        raise PermissionDenied
    if request.method != "POST":
        return HttpResponseNotAllowed(["POST"])
    profile, model, exception = (request.POST.get(name, "") for name in CAUSE)
    of_group = f": {model}, {exception}" if model or exception else ""
    with errors_as_messages(request):
        run = api.deserialize(profile, retry_errors=True, only_model=model, only_exception=exception)
        message_started(model_admin, request, run, f"retries all failed records of {profile}{of_group}")
    return HttpResponseRedirect(reverse("admin:morango_celery_recordinerror_changelist"))


def _groups() -> list[dict[str, Any]]:
    """Return the groups, the most frequent first.

    Cost: one query, which reads the dirty records without their contents.
    """
    groups = RecordInError.objects.values(*CAUSE).annotate(
        count=Count("pk"), example=Max(Left("deserialization_error", EXAMPLE_CHARACTERS))
    )
    return list(groups.order_by("-count", *CAUSE))
