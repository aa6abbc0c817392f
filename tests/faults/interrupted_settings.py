"""The settings of `tests.poison_app`, for a worker that is interrupted."""

from tests.poison_app.settings import *  # noqa: F403  (settings are modules of names)
from tests.poison_app.settings import INSTALLED_APPS

INSTALLED_APPS = [*INSTALLED_APPS, "tests.faults.interrupted.InterruptedConfig"]
