"""The deployment's settings, with limits from the environment that suit a test, and deaths as planned."""

import os

from worker.settings import *  # noqa: F403
from worker.settings import CELERY_BROKER_TRANSPORT_OPTIONS, INSTALLED_APPS, MORANGO_CELERY

INSTALLED_APPS = [*INSTALLED_APPS, "tests.faults.deaths.apps.DeathsConfig"]
MORANGO_CELERY = {
    **MORANGO_CELERY,
    "MAX_ATTEMPTS": int(os.environ.get("MAX_ATTEMPTS", "3")),
    "STALLED_AFTER_SECONDS": int(os.environ.get("STALLED_AFTER_SECONDS", "900")),
}
CELERY_BROKER_TRANSPORT_OPTIONS = {
    **CELERY_BROKER_TRANSPORT_OPTIONS,
    "visibility_timeout": int(os.environ.get("VISIBILITY_TIMEOUT", "600")),
    "unacked_restore_interval": 1,
}
