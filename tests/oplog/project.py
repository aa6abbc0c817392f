"""A project of the library, which records its changes in OPLOG_FILE if that is set."""

import os

from tests.library.labels import LIBRARY
from worker.settings import *  # noqa: F403
from worker.settings import INSTALLED_APPS

INSTALLED_APPS = [
    *INSTALLED_APPS,
    "morango_celery.oplog",
    "morango_celery.payloads",
    "tests.model_zoo",
    "tests.library",
]
MORANGO_CELERY_OPLOG: dict[str, object] = {"INGEST_MODELS": LIBRARY}
# About `model_zoo`, at each command
SILENCED_SYSTEM_CHECKS = ["morango_celery.I001", "morango_celery.I002", "morango_celery.I003"]
if os.environ.get("OPLOG_FILE"):
    MORANGO_CELERY_OPLOG = {
        **MORANGO_CELERY_OPLOG,
        "FILE": os.environ["OPLOG_FILE"],
        "MODELS": [
            *("library.Shelf", "library.Author", "library.Tag", "library.Book", "library.Review"),
            *("library.Hen", "library.Egg", "library.Annex", "library.Card", "library.Stamp"),
        ],
        "ROTATE_BYTES": int(os.environ.get("OPLOG_ROTATE_BYTES", "20000")),
    }
