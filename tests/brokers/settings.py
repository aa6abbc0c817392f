"""The deployment's settings, with a queue of the test's own, of the type that it names."""

import os

from worker.settings import *  # noqa: F403
from worker.settings import INSTALLED_APPS

CELERY_TASK_DEFAULT_QUEUE = os.environ["QUEUE"]
CELERY_TASK_DEFAULT_EXCHANGE = CELERY_TASK_DEFAULT_ROUTING_KEY = CELERY_TASK_DEFAULT_QUEUE
if os.environ["QUEUE_TYPE"] == "quorum":
    CELERY_TASK_DEFAULT_QUEUE_TYPE = "quorum"
    CELERY_TASK_DEFAULT_EXCHANGE_TYPE = "topic"  # so that RabbitMQ itself keeps messages until they are due
    CELERY_TASK_QUEUE_MAX_PRIORITY = None  # type: ignore[assignment]  # a number elsewhere

INSTALLED_APPS = [*INSTALLED_APPS, "morango_celery.payloads"]
CELERY_IMPORTS = ["tests.brokers.tasks"]
