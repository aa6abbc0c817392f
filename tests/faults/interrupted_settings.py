"""The settings of `tests.dangerous`, for a worker that is interrupted."""

from tests.dangerous.settings import *  # noqa: F403  (settings are modules of names)
from tests.dangerous.settings import INSTALLED_APPS

INSTALLED_APPS = [*INSTALLED_APPS, "tests.faults.interrupted.InterruptedConfig"]
