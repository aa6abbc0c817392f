"""Opening of regular files only: a FIFO would block, and a device would swallow the lines."""

from __future__ import annotations

import errno
import os
import stat
from pathlib import Path

_KINDS = {
    stat.S_IFDIR: "a folder",
    stat.S_IFIFO: "a FIFO",
    stat.S_IFCHR: "a device",
    stat.S_IFBLK: "a device",
    stat.S_IFSOCK: "a socket",
}
_WITHOUT_EFFECT = os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC


class SpecialFileError(OSError):
    """A log's path leads to something else than a regular file."""


def open_regular(path: str | Path, flags: int, mode: int = 0o640) -> int:
    """Open a regular file, without waiting for any other kind.

    :param mode: permissions of a new file
    :returns: a file descriptor
    :raises SpecialFileError: it is no regular file
    :raises OSError: it can't be opened
    """
    try:
        descriptor = os.open(path, flags | _WITHOUT_EFFECT, mode)
    except OSError as error:
        if error.errno in (errno.EISDIR, errno.ENXIO):  # ENXIO: a socket, or a device that isn't there
            raise _refused(path, os.stat(path).st_mode) from error
        raise
    found = os.fstat(descriptor).st_mode
    if not stat.S_ISREG(found):
        os.close(descriptor)
        raise _refused(path, found)
    return descriptor


def _refused(path: str | Path, mode: int) -> SpecialFileError:
    kind = _KINDS.get(stat.S_IFMT(mode), "no file")
    return SpecialFileError(f"{os.fspath(path)} is {kind}; a log consists of regular files.")
