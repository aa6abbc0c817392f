"""The deployment's settings, as they are measured; BENCH_SETTINGS changes single ones of this package's."""

import json
import os

from worker.settings import *  # noqa: F403  (settings are modules of names)
from worker.settings import INSTALLED_APPS
from worker.settings import MORANGO_CELERY as DEPLOYED

SCHOOL = [f"school.{name}" for name in ("Unit", "Learner", "Lesson", "Attempt", "Feedback")]
INSTALLED_APPS = [*INSTALLED_APPS, "morango_celery.oplog", "morango_celery.payloads"]
MORANGO_CELERY_OPLOG = {"INGEST_MODELS": SCHOOL}
MORANGO_CELERY = {
    **DEPLOYED,
    **json.loads(os.environ.get("BENCH_SETTINGS") or "{}"),
}
