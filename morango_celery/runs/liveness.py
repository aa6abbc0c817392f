"""Signs of life that end with their process: for runs that processes carry out on SQLite, without workers.

A file beside the database has a byte for each run: written when the run begins, and locked for as long as its
process lives, however slow or frozen that is. The system lets go of the lock when the process is gone. With
PostgreSQL only time tells: its sessions' locks are not kept apart by a pooler.
"""

from __future__ import annotations

import contextlib
import enum
import fcntl
import os
import threading
from collections.abc import Iterator

from django.db import connection

SUFFIX = "-morango-celery-runs"

_descriptors: dict[str, int] = {}
"""By path. None is ever closed, for with one of them a process would let go of all its locks."""

_held: set[tuple[str, int, int]] = set()
"""Path, process and run: a process always gets the locks that it has, and a forked one has none of them."""

_one_at_a_time = threading.Lock()
"""Who looks at a lock that another thread is about to take would take it away."""


class Life(enum.Enum):
    """Knowledge about the process that carries a run out."""

    GOES_ON = enum.auto()
    IS_OVER = enum.auto()
    UNKNOWN = enum.auto()


@contextlib.contextmanager
def shown(run_id: int) -> Iterator[None]:
    """Show, for as long as the block lasts, that the run's process lives. Without such a file, do nothing."""
    path = _path()
    descriptor = _descriptor(path)
    if path is None or descriptor is None:
        yield
        return
    mine = (path, os.getpid(), run_id)
    with _one_at_a_time:
        fcntl.lockf(descriptor, fcntl.LOCK_EX, 1, run_id)  # waits for who is just looking
        os.pwrite(descriptor, b"1", run_id)
        _held.add(mine)
    try:
        yield
    finally:
        with _one_at_a_time:
            os.pwrite(descriptor, b"\0", run_id)  # only a process that is killed leaves it
            _held.discard(mine)
            fcntl.lockf(descriptor, fcntl.LOCK_UN, 1, run_id)


def life_of(run_id: int) -> Life:
    """Return what is known of the run's process."""
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
    if connection.vendor != "sqlite":
        return None
    name = str(connection.settings_dict["NAME"])
    return f"{name}{SUFFIX}" if os.path.isfile(name) else None  # others are in memory


def _descriptor(path: str | None) -> int | None:
    if path is None:
        return None
    if path not in _descriptors:
        try:
            _descriptors[path] = os.open(path, os.O_RDWR | os.O_CREAT, 0o600)
        except OSError:  # a folder in which only the database may be written: then only time tells
            return None
    return _descriptors[path]
