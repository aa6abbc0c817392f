"""A project of the library, which records its changes in OPLOG_FILE if that is set."""

import os

from tests.oplog.labels import LIBRARY
from worker.settings import *  # noqa: F403
from worker.settings import INSTALLED_APPS, MORANGO_CELERY

INSTALLED_APPS = [*INSTALLED_APPS, "tests.variety", "tests.oplog.library"]
MORANGO_CELERY = {**MORANGO_CELERY, "OPLOG_INGEST_MODELS": LIBRARY}
SILENCED_SYSTEM_CHECKS = ["morango_celery.I001", "morango_celery.I002"]  # about `variety`, at each command
if os.environ.get("OPLOG_FILE"):
    MORANGO_CELERY = {
        **MORANGO_CELERY,
        "OPLOG_FILE": os.environ["OPLOG_FILE"],
        "OPLOG_MODELS": [
            *("library.Shelf", "library.Author", "library.Tag", "library.Book", "library.Review"),
            *("library.Hen", "library.Egg", "library.Annex", "library.Card", "library.Stamp"),
        ],
        "OPLOG_ROTATE_BYTES": int(os.environ.get("OPLOG_ROTATE_BYTES", "20000")),
    }
