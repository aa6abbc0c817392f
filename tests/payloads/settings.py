"""The deployment's settings, with payloads where the environment says; for the workers of these tests."""

import json
import os

from worker.settings import *  # noqa: F403  (settings are modules of names)
from worker.settings import INSTALLED_APPS

INSTALLED_APPS = [*INSTALLED_APPS, "morango_celery.payloads"]
MORANGO_CELERY_PAYLOADS = json.loads(os.environ.get("PAYLOAD_SETTINGS") or "{}")
