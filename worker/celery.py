"""The Celery application: ``celery -A worker worker``."""

from __future__ import annotations

import os
from typing import Any

from celery import Celery
from celery.signals import celeryd_init
from django.conf import settings
from django.core.exceptions import ImproperlyConfigured

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "worker.settings")

app = Celery("worker")
app.config_from_object("django.conf:settings", namespace="CELERY")
app.autodiscover_tasks()


@celeryd_init.connect
def require_broker(**_: Any) -> None:
    """Say which variable is missing, rather than retry a broker that can't exist for ever."""
    if not getattr(settings, "REDIS_URL", "set by other settings"):
        raise ImproperlyConfigured(
            "The environment variable REDIS_URL is not set. Set it to redis://host:port/0."
        )
