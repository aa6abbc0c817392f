"""Kolibri's settings, as they are measured; BENCH_SETTINGS changes single ones of this package's."""

import json
import os

from morango_celery.celery_settings import *  # noqa: F403  (settings are modules of names)
from tests.kolibri.settings import *  # noqa: F403  (as above)

MORANGO_CELERY = json.loads(os.environ.get("BENCH_SETTINGS") or "{}")
REDIS_URL = CELERY_BROKER_URL = os.environ.get("REDIS_URL", "")
LOGGING = {"version": 1, "disable_existing_loggers": False}  # a worker says when it is ready
