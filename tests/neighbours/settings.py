"""The deployment's settings, with models whose code looks at other rows, or writes them."""

import os

from worker.settings import *  # noqa: F403
from worker.settings import INSTALLED_APPS, MORANGO_CELERY

INSTALLED_APPS = [*INSTALLED_APPS, "tests.neighbours"]
MORANGO_CELERY = {**MORANGO_CELERY, "EXCLUSIVE_MODELS": os.environ.get("EXCLUSIVE_MODELS", "").split()}
