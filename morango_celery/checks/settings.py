"""The settings of this app."""

from __future__ import annotations

from typing import Any

from django.apps import apps
from django.core.checks import CheckMessage, Error, register

from morango_celery.conf import problems, settings


@register("morango_celery")
def check_settings(app_configs: Any = None, **kwargs: Any) -> list[CheckMessage]:
    """One error per unknown name or unusable value in ``settings.MORANGO_CELERY``."""
    return [Error(text, id="morango_celery.E001") for text in problems()]


@register("morango_celery")
def check_recorded_models(app_configs: Any = None, **kwargs: Any) -> list[CheckMessage]:
    """One error per label in ``OPLOG_MODELS`` that no installed model has."""
    if problems():
        return []
    return [
        Error(
            f"MORANGO_CELERY['OPLOG_MODELS'] names {label!r}, which is not installed.",
            hint="Mend the label, or add its app to INSTALLED_APPS.",
            id="morango_celery.E002",
        )
        for label in settings.OPLOG_MODELS
        if not _is_installed(label)
    ]


def _is_installed(label: str) -> bool:
    try:
        apps.get_model(label)
    except LookupError:
        return False
    return True
