"""Kolibri's settings, as they are measured; BENCH_SETTINGS changes single ones of this package's."""

import json
import os

from tests.kolibri.settings import *  # noqa: F403  (settings are modules of names)

MORANGO_CELERY = json.loads(os.environ.get("BENCH_SETTINGS") or "{}")
