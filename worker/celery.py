"""The Celery application: ``python -m morango_celery.worker -A worker``."""

from __future__ import annotations

import os
import sys
from typing import Any

from celery import Celery
from celery.signals import celeryd_init
from django.conf import settings

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "worker.settings")

app = Celery("worker")
app.config_from_object("django.conf:settings", namespace="CELERY")
app.autodiscover_tasks()


@celeryd_init.connect
def require_broker(**_: Any) -> None:
    """Name the missing variable, instead of retrying a broker that can't exist.

    It exits, because Celery only logs an ordinary exception of a signal's receiver.
    """
    if not getattr(settings, "BROKER_URL", "set by other settings"):
        sys.exit("error: The environment variable REDIS_URL is not set. Set it to redis://host:port/0.")
