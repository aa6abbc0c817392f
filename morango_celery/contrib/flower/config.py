"""Flower's options for this package's tasks; its command line overrides them.

Flower executes this file, and takes the names of its options from it. Other options are given as FLOWER_...
in the environment.
"""

from __future__ import annotations

import os as _os
import sys as _sys
from typing import Any

from morango_celery.contrib.flower.rows import result_text as _result_text


def _required(name: str, hint: str) -> str:
    value = _os.environ.get(name, "").strip()
    if not value:
        _sys.exit(f"error: The environment variable {name} is not set. {hint}")
    return value


_user = _required("FLOWER_USER", "Set it to the name that Flower shall ask for.")
_password = _required("FLOWER_PASSWORD", "Set it to the password that Flower shall ask for.")
if ":" in _user:
    _sys.exit("error: The environment variable FLOWER_USER must not contain a colon.")
_read_only = _os.environ.get("FLOWER_READ_ONLY", "").strip() or "1"
if _read_only not in ("0", "1"):
    _sys.exit(f"error: The environment variable FLOWER_READ_ONLY must be 1 or 0, not {_read_only!r}.")

basic_auth = [f"{_user}:{_password}"]
# A user who may do more than watch can send any task with any arguments, and stop workers
read_only = _read_only == "1"

# Its data ends with it: the ledger lasts, and the file system may be read-only.
persistent = False
max_tasks = 20_000
purge_offline_workers = 600  # seconds; a container that is created again has another name
natural_time = True
tasks_columns = "name,args,state,result,received,runtime,worker,retries"


def format_task(task: Any) -> Any:
    """Return a copy of Flower's task, as its row shows it."""
    task.result = _result_text(task.name, task.result, task.exception)
    return task
