"""Filters of the list of records in error."""

from __future__ import annotations

from typing import Any

from django.contrib import admin
from django.contrib.admin.options import IncorrectLookupParameters
from django.db.models import QuerySet
from django.http import HttpRequest
from typing_extensions import override

from morango_celery.models import RecordInError, Run
from morango_celery.reading.filters import under_filter

TITLES = {"model_name": "model", "deserialization_exception": "exception", "profile": "profile"}


def filters() -> list[type[admin.SimpleListFilter]]:
    """Cost: one query for the choices of all, where Django's own filters would each make one."""
    found = list(RecordInError.objects.values_list(*TITLES).distinct())
    choices = zip(*found, strict=True) if found else [()] * len(TITLES)
    return [UnderTheFilterOfRun, *map(_one_of, TITLES, choices)]


def _one_of(column: str, choices: tuple[str, ...]) -> type[admin.SimpleListFilter]:
    class OneOf(admin.SimpleListFilter):
        title = TITLES[column]
        parameter_name = column

        @override
        def lookups(self, request: HttpRequest, model_admin: Any) -> list[tuple[str, str]]:
            chosen = filter(None, [self.value()])  # may be that of records that aren't in error any more
            return [(choice, choice) for choice in sorted({*choices, *chosen})]

        @override
        def queryset(self, request: HttpRequest, queryset: QuerySet[Any]) -> QuerySet[Any]:
            value = self.value()
            return queryset if value is None else queryset.filter(**{column: value})

    return OneOf


class UnderTheFilterOfRun(admin.SimpleListFilter):
    """Is offered only where a link has chosen it: there are too many runs to choose from."""

    title = "run"
    parameter_name = "run"

    @override
    def lookups(self, request: HttpRequest, model_admin: Any) -> list[tuple[str, str]]:
        value = self.value()
        return [(value, f"under the filter of run {value}")] if value else []

    @override
    def queryset(self, request: HttpRequest, queryset: QuerySet[Any]) -> QuerySet[Any]:
        value = self.value()
        if value is None:
            return queryset
        try:
            run = Run.objects.get(pk=value)
        except (Run.DoesNotExist, ValueError, OverflowError) as error:
            raise IncorrectLookupParameters(error) from error
        return queryset.filter(under_filter("partition", run.sync_filter), profile=run.profile)
