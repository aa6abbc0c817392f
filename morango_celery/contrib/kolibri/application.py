"""The Celery application that Kolibri has none of. Workers start with `worker`, which imports this one."""

from __future__ import annotations

import kolibri  # noqa: F401  (names the settings, unless the environment does)
from celery import Celery

app = Celery("kolibri")
app.config_from_object("django.conf:settings", namespace="CELERY")
app.autodiscover_tasks(["morango_celery"])
