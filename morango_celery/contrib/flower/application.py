"""The Celery application that Flower listens with: a broker, and no tasks."""

from __future__ import annotations

import os
import sys

from celery import Celery

_broker_url = os.environ.get("BROKER_URL", "").strip() or os.environ.get("REDIS_URL", "").strip()
if not _broker_url:
    sys.exit("error: The environment variable REDIS_URL is not set. Set it to redis://host:port/0.")

# Without Celery's fixup for Django, which would want the project's settings
app = Celery("flower", broker=_broker_url, fixups=set())
app.config_from_object("morango_celery.celery_settings", namespace="CELERY")
