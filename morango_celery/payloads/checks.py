"""System checks of the settings of payloads, and of their Redis's password."""

from __future__ import annotations

from typing import Any

from django.core.checks import CheckMessage, Error, register
from kombu.utils.url import parse_url

from morango_celery.checks.credentials import unprotected_server
from morango_celery.payloads.conf import problems, settings


@register("morango_celery")
def check_settings(app_configs: Any = None, **kwargs: Any) -> list[CheckMessage]:
    """Return one error per unknown name or unusable value in ``settings.MORANGO_CELERY_PAYLOADS``."""
    return [Error(text, id="morango_celery.E001") for text in problems()]


@register("morango_celery", deploy=True)
def check_credentials(app_configs: Any = None, **kwargs: Any) -> list[CheckMessage]:
    """Warn of a Redis with payloads that asks for no password, or for one that is easily guessed."""
    if problems() or settings.BACKEND != "redis":
        return []
    where = "MORANGO_CELERY_PAYLOADS['LOCATION']"
    return list(unprotected_server(where, where, parse_url(settings.LOCATION)))
