"""Settings of gunicorn for a sync server.

``gunicorn myproject.wsgi --config=python:morango_celery.contrib.gunicorn`` uses them; options on its command
line override them. A request of a sync may wait for a worker (mode ``await``), so there are threads.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path


def _number(name: str, default: int) -> int:
    text = os.environ.get(name, "").strip() or str(default)
    if not text.isascii() or not text.isdigit() or int(text) < 1:
        sys.exit(f"error: The environment variable {name} must be a whole number from 1, not {text!r}.")
    return int(text)


workers = _number("WEB_WORKERS", 2)
worker_class = "gthread"
threads = _number("WEB_THREADS", 8)
"""Requests at a time in each process; each may hold a database connection."""
graceful_timeout = 30
"""Seconds for requests under way when it is stopped: the supervisor's grace must be longer."""
control_socket_disable = True  # the home folder may not exist
accesslog = "-"
if Path("/dev/shm").is_dir():  # noqa: S108  (not for files of ours, but for gunicorn's own heartbeats)
    worker_tmp_dir = "/dev/shm"  # noqa: S108  (where a slow disk doesn't hold up a heartbeat)
