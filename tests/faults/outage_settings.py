"""The deployment's settings, with limits from the environment that suit a test. Unlike
`tests.faults.settings`, they add nothing that asks the database before a task does."""

import os

from worker.settings import *  # noqa: F403
from worker.settings import (
    CELERY_BROKER_TRANSPORT_OPTIONS,
    CELERY_TASK_SOFT_TIME_LIMIT,
    CELERY_TASK_TIME_LIMIT,
    CELERY_WORKER_CANCEL_LONG_RUNNING_TASKS_ON_CONNECTION_LOSS,
    INSTALLED_APPS,
    MORANGO_CELERY,
)

MORANGO_CELERY = {
    **MORANGO_CELERY,
    "STALLED_AFTER_SECONDS": int(os.environ.get("STALLED_AFTER_SECONDS", "900")),
}
if os.environ.get("CANCEL_ON_CONNECTION_LOSS"):
    CELERY_WORKER_CANCEL_LONG_RUNNING_TASKS_ON_CONNECTION_LOSS = True
if os.environ.get("POISON_APP"):
    INSTALLED_APPS = [*INSTALLED_APPS, "tests.poison_app.apps.PoisonAppConfig"]
if os.environ.get("WITHOUT_SOCKET_TIMEOUTS"):
    CELERY_BROKER_TRANSPORT_OPTIONS = {
        name: value
        for name, value in CELERY_BROKER_TRANSPORT_OPTIONS.items()
        if not name.startswith("socket_")
    }
CELERY_TASK_SOFT_TIME_LIMIT = int(os.environ.get("SOFT_TIME_LIMIT", CELERY_TASK_SOFT_TIME_LIMIT))
CELERY_TASK_TIME_LIMIT = int(os.environ.get("TIME_LIMIT", CELERY_TASK_TIME_LIMIT))
