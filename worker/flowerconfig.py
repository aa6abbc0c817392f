"""Flower's options: ``celery -A worker flower --conf=worker/flowerconfig.py``.

Flower executes this file, and takes the names of its options from it. Other options can be given as
FLOWER_... in the environment. Its command line overrides both.
"""

from __future__ import annotations

import sys
from typing import Any

from django.core.exceptions import ImproperlyConfigured

from worker import environment
from worker.flowerrows import result_text

try:
    user = environment.required("FLOWER_USER", "Set it to the name that Flower shall ask for.")
    password = environment.required("FLOWER_PASSWORD", "Set it to the password that Flower shall ask for.")
    if ":" in user:
        raise ImproperlyConfigured("The environment variable FLOWER_USER must not contain a colon.")
    # A user who may do more than watch can send any task with any arguments, and stop workers
    read_only = environment.flag("FLOWER_READ_ONLY", default=True)
except ImproperlyConfigured as error:
    sys.exit(f"error: {error}")

basic_auth = [f"{user}:{password}"]

# Its data ends with it: the ledger lasts, and the file system may be read-only.
persistent = False
max_tasks = 20_000
purge_offline_workers = 600  # seconds; a container that is created again has another name
natural_time = True
tasks_columns = "name,args,state,result,received,runtime,worker,retries"


def format_task(task: Any) -> Any:
    """Return a copy of Flower's task, as its row shows it."""
    task.result = result_text(task.name, task.result, task.exception)
    return task
