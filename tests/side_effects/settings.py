"""Settings of the deployment, with models that have code which writes other rows."""

import os

from worker.settings import *  # noqa: F403
from worker.settings import INSTALLED_APPS, MORANGO_CELERY

INSTALLED_APPS = [*INSTALLED_APPS, "tests.side_effects"]
if os.environ.get("IN_PROCESS"):
    MORANGO_CELERY = {**MORANGO_CELERY, "IN_PROCESS": True}
