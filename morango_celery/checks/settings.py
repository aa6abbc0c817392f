"""The settings of this app."""

from __future__ import annotations

from typing import Any

from django.core.checks import CheckMessage, Error, register

from morango_celery.conf import problems


@register("morango_celery")
def check_settings(app_configs: Any = None, **kwargs: Any) -> list[CheckMessage]:
    """One error per unknown name or unusable value in ``settings.MORANGO_CELERY``."""
    return [Error(text, id="morango_celery.E001") for text in problems()]
