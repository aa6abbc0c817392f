"""The deployment's settings, with learners that are a danger to their worker, and limits to suit a test."""

import os

from worker.settings import *  # noqa: F403
from worker.settings import INSTALLED_APPS, MORANGO_CELERY

INSTALLED_APPS = [*INSTALLED_APPS, "tests.poison_app.apps.PoisonAppConfig"]
MORANGO_CELERY = {**MORANGO_CELERY, "MAX_ATTEMPTS": int(os.environ.get("MAX_ATTEMPTS", "3"))}
CELERY_TASK_SOFT_TIME_LIMIT = int(os.environ.get("SOFT_TIME_LIMIT", "270"))
CELERY_TASK_TIME_LIMIT = int(os.environ.get("TIME_LIMIT", "300"))
