"""The deployment's settings, with a broker that is no server: its messages are put there when the worker is
ready, by itself, for those of some brokers are in no other process."""

import os
from typing import Any

from celery.signals import worker_ready

from tests.faults.garbage import POLLED
from worker.settings import *  # noqa: F403

CELERY_BROKER_URL = os.environ["POLLED_BROKER"]
CELERY_BROKER_TRANSPORT_OPTIONS = {
    "data_folder_in": os.environ["POLLED_FOLDER"],
    "data_folder_out": os.environ["POLLED_FOLDER"],
    "control_folder": os.environ["POLLED_FOLDER"],
    "polling_interval": 0.05,
}


@worker_ready.connect
def _put(sender: Any, **kwargs: Any) -> None:
    with sender.app.connection_for_write() as connection:
        for raw in POLLED:
            connection.default_channel._put("celery", raw)
