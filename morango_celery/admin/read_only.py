"""The common base of pages whose rows are written by runs alone."""

from __future__ import annotations

import re
from typing import Any

from django.contrib import admin
from django.http import HttpRequest, HttpResponse
from typing_extensions import override

MAX_NUMBER_DIGITS = 18
"""More than the database's whole numbers hold for certain."""


class ReadOnlyAdmin(admin.ModelAdmin):  # type: ignore[type-arg]  # Django 3.2's takes no parameter
    """An admin that lets nobody add, change or delete; each action says who may use it."""

    show_full_result_count = False
    list_per_page = 100

    searched_numbers: tuple[str, ...] = ()
    """Fields that a search compares with a whole number, besides the texts of `search_fields`."""
    searched_ids: tuple[str, ...] = ()
    """Fields that it compares with an id of Morango's."""

    class Media:
        css = {"all": ["morango_celery/admin.css"]}

    @override
    def has_add_permission(self, request: HttpRequest) -> bool:
        return False

    @override
    def has_change_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        return False

    @override
    def has_delete_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        return False

    @override
    def changelist_view(self, request: HttpRequest, extra_context: Any = None) -> HttpResponse:
        # Without the sidebar of other apps, a small window has room for all columns
        return super().changelist_view(request, {"is_nav_sidebar_enabled": False, **(extra_context or {})})

    def has_operate_permission(self, request: HttpRequest) -> bool:
        """Return True for users with the permission to change rows, though nobody may edit them here."""
        return request.user.has_perm("morango_celery.change_run")

    @override
    def get_search_results(self, request: HttpRequest, queryset: Any, search_term: str) -> tuple[Any, bool]:
        found, may_repeat = super().get_search_results(request, queryset, search_term)
        for field, value in self._exact(search_term.strip()).items():
            found |= queryset.filter(**{field: value})
        return found, may_repeat

    def _exact(self, term: str) -> dict[str, Any]:
        if term.isascii() and term.isdecimal() and len(term) <= MAX_NUMBER_DIGITS:
            return dict.fromkeys(self.searched_numbers, int(term))
        if re.fullmatch("[0-9a-f]{32}", term.lower().replace("-", "")):
            return dict.fromkeys(self.searched_ids, term)
        return {}
