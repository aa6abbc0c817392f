"""Kolibri's own Django settings with this app installed.

Kolibri reads the rest from the environment: ``KOLIBRI_HOME`` (a folder that exists) and
``KOLIBRI_DATABASE_{ENGINE,NAME,USER,PASSWORD,HOST,PORT}``; see ``databases.py``.
"""

import os

from kolibri.deployment.default.settings.base import *  # noqa: F403
from kolibri.deployment.default.settings.base import INSTALLED_APPS as KOLIBRI_APPS

INSTALLED_APPS = [*KOLIBRI_APPS, "morango_celery", "tests.kolibri.apps.KolibriTestsConfig"]

# Every record in error is a warning of Morango's; the report shows them better.
LOGGING = {"version": 1, "disable_existing_loggers": True}

MORANGO_CELERY = {"USE_EQUIVALENTS": not os.environ.get("WITHOUT_EQUIVALENTS")}
