"""System check of the settings of payloads."""

from __future__ import annotations

from typing import Any

from django.core.checks import CheckMessage, Error, register

from morango_celery.payloads.conf import problems


@register("morango_celery")
def check_settings(app_configs: Any = None, **kwargs: Any) -> list[CheckMessage]:
    """Return one error per unknown name or unusable value in ``settings.MORANGO_CELERY_PAYLOADS``."""
    return [Error(text, id="morango_celery.E001") for text in problems()]
