"""The settings of these tests, with recovery after seconds."""

from tests.brokers.settings import *  # noqa: F403
from tests.brokers.settings import MORANGO_CELERY

MORANGO_CELERY = {**MORANGO_CELERY, "STALLED_AFTER_SECONDS": 3}
