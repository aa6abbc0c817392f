"""Runs as a list has them: looked at in three queries, however many there are."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from django.contrib import admin
from django.contrib.admin.options import IncorrectLookupParameters
from django.contrib.admin.views.main import ChangeList
from django.db.models import Max, Q, QuerySet, Value
from django.db.models.functions import Concat, Least, StrIndex, Substr
from django.http import HttpRequest
from typing_extensions import override

from morango_celery.admin.shortened import beginning
from morango_celery.admin.sql import time_limit
from morango_celery.admin.syncs import shortened, syncs_of
from morango_celery.errors import QueryTimeoutError
from morango_celery.models import Run
from morango_celery.runs.status import paused, stalled, statuses

LOOKED_AT_RUNS = 2000
SHOWN_FACILITIES = 50
WHOLE_PROFILE = "*"
"""Value of the filter by facility for runs of a whole profile."""
FACILITY_ENDS = (":", "\n")
"""Characters after a facility's id in a run's filter: more of its first prefix, or further prefixes."""
COUNTING_SECONDS = 2.0
"""Time limit of the database for counting waiting records; a page does without the number then."""


def with_status(run_ids: Sequence[int], *, in_short: bool = False) -> list[Any]:
    """Return the runs in this order, each with its `Status` as `status`.

    :param in_short: whether the beginnings of their errors will do, as `error_begins`
    """

    def prepared(runs: QuerySet[Run]) -> QuerySet[Run]:
        return runs.defer("error").annotate(error_begins=beginning("error")) if in_short else runs

    try:
        with time_limit(COUNTING_SECONDS):
            found = statuses(run_ids, prepared=prepared)
    except QueryTimeoutError:
        found = statuses(run_ids, counted=False, prepared=prepared)
    runs: dict[int, Any] = {}
    for status in found:
        runs[status.run.pk] = status.run
        runs[status.run.pk].status = status
    return [runs[run_id] for run_id in run_ids if run_id in runs]


class RunList(ChangeList):
    @override
    def get_results(self, request: HttpRequest) -> None:
        super().get_results(request)
        runs = with_status(list(self.result_list.values_list("pk", flat=True)), in_short=True)
        syncs = syncs_of(runs)
        for run in runs:
            run.sync = syncs.get(run.pk)
        self.result_list: Any = runs


class OfFacility(admin.SimpleListFilter):
    """The facilities of the newest runs: the beginning of a filter's first prefix, up to a colon."""

    title = "facility"
    parameter_name = "facility"

    @override
    def lookups(self, request: HttpRequest, model_admin: Any) -> list[tuple[str, str]]:
        ends = (StrIndex(Concat("filter", Value(end)), Value(end)) for end in FACILITY_ENDS)
        newest = Run.objects.order_by("-pk").values("pk")[:LOOKED_AT_RUNS]
        runs = Run.objects.filter(pk__in=newest).exclude(filter=None)
        named = runs.annotate(facility=Substr("filter", 1, Least(*ends) - 1)).values("facility")
        found = named.annotate(newest=Max("pk")).order_by("-newest")
        facilities = [row["facility"] for row in found[:SHOWN_FACILITIES]]
        chosen = self.value()
        if chosen and chosen != WHOLE_PROFILE and chosen not in facilities:
            facilities.append(chosen)
        return [
            (WHOLE_PROFILE, "whole profile"),
            *((facility, shortened(facility)) for facility in facilities),
        ]

    @override
    def queryset(self, request: HttpRequest, queryset: QuerySet[Run]) -> QuerySet[Run]:
        facility = self.value()
        if not facility:
            return queryset
        if facility == WHOLE_PROFILE:
            return queryset.filter(filter=None)
        if "\x00" in facility:  # no text of PostgreSQL's has it
            raise IncorrectLookupParameters
        chosen = Q(filter=facility)
        for end in FACILITY_ENDS:
            chosen |= Q(filter__startswith=f"{facility}{end}")
        return queryset.filter(chosen)


class SignsOfLife(admin.SimpleListFilter):
    title = "signs of life"
    parameter_name = "stalled"

    @override
    def lookups(self, request: HttpRequest, model_admin: Any) -> list[tuple[str, str]]:
        return [("yes", "stalled"), ("paused", "paused")]

    @override
    def queryset(self, request: HttpRequest, queryset: QuerySet[Run]) -> QuerySet[Run]:
        match self.value():
            case "yes":
                return queryset.filter(pk__in=stalled().values("pk"))
            case "paused":
                return queryset.filter(pk__in=paused().values("pk"))
        return queryset
