"""Pauses: orders to let runs wait, given and ended here as by ``pause_runs`` and ``resume_runs``."""

from __future__ import annotations

from typing import Any

from django import forms
from django.contrib import admin, messages
from django.http import HttpRequest
from typing_extensions import override

from morango_celery import api
from morango_celery.admin.messages import errors_as_messages
from morango_celery.admin.read_only import ReadOnlyAdmin
from morango_celery.admin.times import time_of
from morango_celery.errors import UsageError
from morango_celery.models import Pause
from morango_celery.reading.filters import parse_filter
from morango_celery.upstream import profiles


class PauseForm(forms.ModelForm):  # type: ignore[type-arg]  # Django 3.2's takes no parameter
    profile = forms.ChoiceField(required=False, choices=lambda: [("", "all profiles"), *_profiles()])
    filter = forms.CharField(
        required=False,
        widget=forms.Textarea(attrs={"rows": 3}),
        help_text="Partition prefixes, one a line. Runs that share partitions with them wait. Empty: all.",
    )

    class Meta:
        model = Pause
        fields = ["profile", "filter", "reason"]

    @override
    def clean(self) -> dict[str, Any]:
        cleaned: dict[str, Any] = super().clean() or {}
        prefixes = cleaned.get("filter", "").split()
        if prefixes and not cleaned.get("profile"):
            self.add_error("profile", "A filter belongs to a profile: choose one.")
        try:
            cleaned["prefixes"] = parse_filter(prefixes) if prefixes else None
        except UsageError as error:
            self.add_error("filter", str(error))
        return cleaned


@admin.action(description="End the selected pauses", permissions=["operate"])
def resume(model_admin: Any, request: HttpRequest, selected: Any) -> None:
    for pause in selected:
        with errors_as_messages(request):
            model_admin.log_change(request, pause, "Resumed.")
            resumed = api.resume_pause(pause.pk)
            runs = "1 run goes" if len(resumed) == 1 else f"{len(resumed):,} runs go"
            messages.success(request, f"The {pause} has ended; {runs} on.")


@admin.register(Pause)
class PauseAdmin(ReadOnlyAdmin):
    form = PauseForm
    fields = ["profile", "filter", "reason"]
    list_display = ["scope", "reason", time_of("created_at", "since")]
    search_fields = ["filter", "reason"]
    ordering = ["-pk"]
    actions = [resume]

    @override
    def has_add_permission(self, request: HttpRequest) -> bool:
        return self.has_operate_permission(request)

    @override
    def save_model(self, request: HttpRequest, obj: Any, form: Any, change: bool) -> None:
        cleaned = form.cleaned_data
        made = api.pause(cleaned["profile"] or None, cleaned["prefixes"], reason=cleaned["reason"])
        obj.pk = made.pk

    @admin.display(ordering="profile")
    def scope(self, pause: Pause) -> str:
        return pause.scope


def _profiles() -> list[tuple[str, str]]:
    return [(name, name) for name in profiles()]
