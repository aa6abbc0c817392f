"""The settings of `tests.dangerous`, for a worker that is interrupted."""

from tests.dangerous.settings import *  # noqa: F403
from tests.dangerous.settings import INSTALLED_APPS

INSTALLED_APPS = [*INSTALLED_APPS, "tests.faults.interrupted.InterruptedConfig"]
