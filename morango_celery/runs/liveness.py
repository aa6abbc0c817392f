"""Signs of life that end with their process, for runs in process on SQLite.

A file beside the database has a byte for each run. It is written when the run begins, and locked for as long
as the run's process lives, even if that is slow or frozen. The system releases the lock when the process is
gone. With PostgreSQL only time tells: its sessions' locks are not kept apart by a pooler.
"""

from __future__ import annotations

import contextlib
import enum
import fcntl
import os
import threading
from collections.abc import Iterator

from django.db import connection

from morango_celery.db.dialect import dialect

SUFFIX = "-morango-celery-runs"

_descriptors: dict[str, int] = {}
"""Descriptors by path. None is ever closed: by closing one, a process releases all its locks of the file."""

_held: set[tuple[str, int, int]] = set()
"""Path, process and run of each lock that is held: the system would grant it to the same process once more,
and gives a forked process none of them."""

_one_at_a_time = threading.Lock()
"""Lock against other threads: the files' locks are the process's, so a look would release one that another
thread has just taken."""


class Life(enum.Enum):
    """State of the process that carries a run out, as far as it is known."""

    GOES_ON = enum.auto()
    IS_OVER = enum.auto()
    UNKNOWN = enum.auto()


@contextlib.contextmanager
def shown(run_id: int) -> Iterator[None]:
    """Show, while the block lasts, that the run's process lives; do nothing if there is no such file."""
    path = _path()
    descriptor = _descriptor(path)
    if path is None or descriptor is None:
        yield
        return
    mine = (path, os.getpid(), run_id)
    with _one_at_a_time:
        fcntl.lockf(descriptor, fcntl.LOCK_EX, 1, run_id)  # waits while another process looks
        os.pwrite(descriptor, b"1", run_id)
        _held.add(mine)
    try:
        yield
    finally:
        with _one_at_a_time:
            os.pwrite(descriptor, b"\0", run_id)  # only a process that is killed leaves the 1
            _held.discard(mine)
            fcntl.lockf(descriptor, fcntl.LOCK_UN, 1, run_id)


def life_of(run_id: int) -> Life:
    """Return the state of the run's process."""
    path = _path()
    descriptor = _descriptor(path)
    if path is None or descriptor is None:
        return Life.UNKNOWN
    with _one_at_a_time:
        if (path, os.getpid(), run_id) in _held:
            return Life.GOES_ON
        try:
            fcntl.lockf(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB, 1, run_id)
        except OSError:  # locked by another process
            return Life.GOES_ON
        has_begun = os.pread(descriptor, 1, run_id) == b"1"
        fcntl.lockf(descriptor, fcntl.LOCK_UN, 1, run_id)
        return Life.IS_OVER if has_begun else Life.UNKNOWN


def _path() -> str | None:
    if not dialect().runs_in_process:
        return None
    name = str(connection.settings_dict["NAME"])
    return f"{name}{SUFFIX}" if os.path.isfile(name) else None  # a database in memory has no file


def _descriptor(path: str | None) -> int | None:
    if path is None:
        return None
    if path not in _descriptors:
        try:
            _descriptors[path] = os.open(path, os.O_RDWR | os.O_CREAT, 0o600)
        except OSError:  # the folder may let only the database be written; then only time tells
            return None
    return _descriptors[path]
