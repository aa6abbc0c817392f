"""Second database beside the default one, for the time of a comparison."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager

from django.db import connections
from django.db.utils import ConnectionHandler

from worker.environment import database

DEVICE = "device"
_VARIABLE = "DEVICE_DATABASE_URL"


@contextmanager
def device_attached(url: str) -> Iterator[str]:
    """Make the device's database known to Django until the block is left, and yield its alias."""
    os.environ[_VARIABLE] = url
    # By a handler of its own, for Django gives settings their defaults when a handler is made
    connections.databases[DEVICE] = ConnectionHandler({"default": {}, DEVICE: database(_VARIABLE)}).databases[
        DEVICE
    ]
    try:
        yield DEVICE
    finally:
        connections[DEVICE].close()
        del connections[DEVICE]
        del connections.databases[DEVICE]
        del os.environ[_VARIABLE]
