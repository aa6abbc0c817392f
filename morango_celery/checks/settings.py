"""System checks of this app's settings, and of database routers."""

from __future__ import annotations

from typing import Any

from django.core.checks import CheckMessage, Error, register

from morango_celery.conf import problems, replica_problems


@register("morango_celery")
def check_settings(app_configs: Any = None, **kwargs: Any) -> list[CheckMessage]:
    """Return one error per unknown name or unusable value in ``settings.MORANGO_CELERY``."""
    return [Error(text, id="morango_celery.E001") for text in problems()]


@register("morango_celery")
def check_replicas(app_configs: Any = None, **kwargs: Any) -> list[CheckMessage]:
    """Return one error per synced model that is read from another database than it is written to."""
    return [
        Error(
            text,
            hint="Let db_for_read of your router return for this model what db_for_write does. Models of "
            "other apps may be read from replicas.",
            id="morango_celery.E010",
        )
        for text in replica_problems()
    ]
