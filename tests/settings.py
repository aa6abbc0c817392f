"""The deployment's settings and an app with models of every kind; also for tools that reach no server."""

import os

os.environ.setdefault("DATABASE_URL", "sqlite://")
os.environ.setdefault("SECRET_KEY", "for-tools-only")

from tests.library.labels import LIBRARY
from worker.settings import *  # noqa: F403
from worker.settings import INSTALLED_APPS

INSTALLED_APPS = [
    *INSTALLED_APPS,
    "morango_celery.oplog",
    "morango_celery.payloads",
    "tests.fast_flush",
    "tests.model_zoo",
    "tests.neighbours",
    "tests.side_effects",
    "tests.library",
]
MORANGO_CELERY_OPLOG = {"INGEST_MODELS": LIBRARY}
