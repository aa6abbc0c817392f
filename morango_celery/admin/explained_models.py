"""The page that explains how records of each model are handled."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from django.core.exceptions import PermissionDenied
from django.http import HttpRequest, HttpResponse
from django.template.response import TemplateResponse

from morango_celery.explanation import ModelExplanation, explain
from morango_celery.explanation.statements import MEANING
from morango_celery.explanation.wording import (
    code_text,
    equivalent_text,
    handling,
    shape,
    statements_in_short,
    statements_text,
    way,
)
from morango_celery.upstream import profiles

HEADINGS = ("stage", "model", "way", "equivalent", "statements", "depends on")


def models_page(model_admin: Any, request: HttpRequest) -> HttpResponse:
    """Show the models of all profiles: their order, their ways, and the reasons.

    :raises PermissionDenied: the user may not see runs
    """
    if not model_admin.has_view_permission(request):
        raise PermissionDenied
    context = {
        **model_admin.admin_site.each_context(request),
        "title": "How models are handled",
        "opts": model_admin.model._meta,
        "media": model_admin.media,
        "headings": HEADINGS,
        "meaning": MEANING,
        "profiles": [_profile(profile, explain(profile)) for profile in profiles()],
    }
    return TemplateResponse(request, "admin/morango_celery/run/models.html", context)


def _profile(profile: str, explained: Sequence[ModelExplanation]) -> dict[str, Any]:
    return {
        "name": profile,
        "count": len(explained),
        "fast": sum(each.is_on_fast_path for each in explained),
        "rows": list(map(_row, explained)),
    }


def _row(explained: ModelExplanation) -> dict[str, Any]:
    return {
        "label": explained.label,
        "is_fast": explained.is_on_fast_path,
        "cells": (
            way(explained),
            equivalent_text(explained),
            statements_in_short(explained),
            ", ".join(each.label for each in explained.dependencies),
        ),
        "stage": explained.stage,
        "reasons": [(reason.text, list(map(code_text, reason.code))) for reason in explained.reasons],
        "facts": [
            *handling(explained),
            *shape(explained),
            ("statements", statements_text(explained)),
            *(("further statements", each) for each in explained.statements.further),
        ],
        "advice": explained.advice,
    }
