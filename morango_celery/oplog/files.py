"""Files of a log and their read positions, found again after renaming, copying and truncation.

A file is identified by its device and inode and by its content: the hash of its first bytes, and of the last
that were read. Device and inode distinguish equal files. The hashes find a copy of a file, and distinguish
the file from another one that took its name or its inode.
"""

from __future__ import annotations

import hashlib
import heapq
import os
import re
from collections.abc import Iterable, Iterator, Sequence
from contextlib import ExitStack, closing, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from morango_celery.oplog.lines import printable
from morango_celery.oplog.models import IngestPosition
from morango_celery.oplog.regular import SpecialFileError, open_regular

BUFFER_BYTES = 256 * 1024
MARK_BYTES = 1024
"""Number of bytes of each hash: of a file's head, and of the part before its position."""

_ROTATED = re.compile(r"[.-]\d[\dTZ.:_-]*")
"""Suffix of a rotated log's name: a number or a time, as logrotate and the recorder add it."""
_ROTATED_END = re.compile(rf"({_ROTATED.pattern})$")

MAX_NUMBER = 5
"""Limit on the digits of a rotated file's number. More digits are a date or a time."""


class OpenFile:
    """An open file of a log. It stays the same file when it is renamed."""

    def __init__(self, path: Path) -> None:
        """Open a file.

        :raises SpecialFileError: it is no regular file
        :raises OSError: it isn't there, or can't be read
        """
        self.path = path
        self.file = open(path, "rb", buffering=BUFFER_BYTES, opener=open_regular)  # noqa: SIM115  (see `close`)
        status = os.fstat(self.file.fileno())
        self.device, self.inode = str(status.st_dev), str(status.st_ino)
        self.modified_ns = status.st_mtime_ns
        self.head = self.read(0, MARK_BYTES)

    @property
    def size_bytes(self) -> int:
        return os.fstat(self.file.fileno()).st_size

    def read(self, offset: int, length: int) -> bytes:
        return os.pread(self.file.fileno(), length, offset)

    def is_unchanged(self, end: int) -> bool:
        """Return True if the file wasn't truncated or rewritten while it was read up to `end`."""
        return self.size_bytes >= end and self.read(0, len(self.head)) == self.head

    def is_at(self, position: IngestPosition) -> bool:
        return (self.device, self.inode) == (position.device, position.inode)

    def continues(self, position: IngestPosition) -> bool:
        """Return True if the file's content up to the position is the content that was read."""
        if self.size_bytes < position.offset:
            return False
        return (_hash(self.read(0, position.head_bytes)), self._tail_hash(position.offset)) == (
            position.head_hash,
            position.tail_hash,
        )

    def mark(self, position: IngestPosition, offset: int) -> None:
        """Set a position to `offset` in this file. The caller saves it."""
        position.path = printable(str(self.path))
        position.device, position.inode = self.device, self.inode
        position.offset = offset
        position.head_bytes = min(offset, MARK_BYTES)
        position.head_hash = _hash(self.read(0, position.head_bytes))
        position.tail_hash = self._tail_hash(offset)

    def _tail_hash(self, offset: int) -> str:
        begin = max(0, offset - MARK_BYTES)
        return _hash(self.read(begin, offset - begin))

    def close(self) -> None:
        self.file.close()


def _hash(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


@dataclass
class Unread:
    """A file with unread bytes."""

    file: OpenFile
    position: IngestPosition | None
    """None if the file is new."""
    offset: int
    """Offset of the first unread byte."""


@contextmanager
def unread_files(path: Path, positions: Sequence[IngestPosition]) -> Iterator[list[Unread]]:
    """Open the unread files of the log at `path`, rotated ones included, in the order of their lines.

    :param positions: positions of files that were read, the latest first
    """
    with ExitStack() as stack:
        files = _open_all(path, stack)
        exact = {}
        for file in files:
            known = next((p for p in positions if file.is_at(p) and file.continues(p)), None)
            if known is not None:
                exact[id(file)] = known
        taken = {position.pk for position in exact.values()}
        found = []
        for file in files:
            known = exact.get(id(file))
            if known is None:
                known = next((position for position in positions if file.continues(position)), None)
                is_copy = known is not None and known.pk in taken
                if file.path != path and (is_copy or _is_being_copied(file, files)):
                    continue
                if known is not None:
                    taken.add(known.pk)
            else:
                is_copy = False
            offset = known.offset if known is not None else 0
            if file.size_bytes > offset:
                found.append(Unread(file, None if is_copy else known, offset))
        yield found


def _open_all(path: Path, stack: ExitStack) -> list[OpenFile]:
    """Open the log and its rotated files, and return them, the oldest first."""
    rotated = []
    with suppress(OSError):
        for entry in path.parent.iterdir():
            added = entry.name.removeprefix(path.name)
            if added != entry.name and _ROTATED.fullmatch(added):
                rotated.append(entry)
    opened = []
    for name in [*rotated, path]:
        with suppress(FileNotFoundError):  # renamed in the meantime; the next look finds it
            file = OpenFile(name)
            stack.callback(file.close)
            opened.append(file)
    opened = [*_oldest_first(path, [file for file in opened if file.path != path]), *_only(path, opened)]
    inodes = {(file.device, file.inode): file for file in reversed(opened)}
    return [file for file in opened if inodes[file.device, file.inode] is file]


def may_be_there(position: IngestPosition) -> bool:
    """Return True if the file of a position may still be in its folder, under any name.

    :raises OSError: the folder, or one of the log's files in it, can't be read
    """
    path = Path(position.path)
    log = _ROTATED_END.sub("", path.name)
    for entry in path.parent.iterdir():
        if printable(entry.name).startswith(log):
            with suppress(FileNotFoundError, SpecialFileError), closing(OpenFile(entry)) as file:
                if file.is_at(position) or file.continues(position):
                    return True
    return False


def _only(path: Path, files: Iterable[OpenFile]) -> list[OpenFile]:
    return [file for file in files if file.path == path]


def _oldest_first(path: Path, rotated: Iterable[OpenFile]) -> Iterator[OpenFile]:
    """Order rotated files by their names, where these are of one kind; by modification time among the kinds.

    A clock may be set back, and a copy has the time at which it was made.
    """
    kinds: dict[str, list[tuple[int, str, OpenFile]]] = {}
    for file in rotated:
        added = file.path.name.removeprefix(path.name)
        digits = added[1:]
        number = -int(digits) if digits.isdecimal() and len(digits) <= MAX_NUMBER else 0
        kind = "" if number or digits == "0" else re.sub(r"\d", "0", added)  # times of the same form
        kinds.setdefault(kind, []).append((number, added, file))
    ordered = [sorted(of_kind, key=lambda one: one[:2]) for of_kind in kinds.values()]
    for _, _, file in heapq.merge(*ordered, key=lambda one: one[2].modified_ns):
        yield file


def _is_being_copied(file: OpenFile, files: Sequence[OpenFile]) -> bool:
    """Return True if a file begins like another one that is no smaller: it may be an unfinished copy."""
    return any(
        other.size_bytes >= file.size_bytes and other.head.startswith(file.head)
        for other in files
        if other is not file
    )


def signature(path: Path) -> tuple[tuple[str, int, int, int], ...]:
    """Return a value that changes when there may be new lines: the files' names, inodes, sizes, times."""
    found = []
    with suppress(OSError), os.scandir(path.parent) as entries:
        for entry in entries:
            if entry.name.startswith(path.name):
                with suppress(OSError):
                    status = entry.stat()
                    found.append((entry.name, status.st_ino, status.st_size, status.st_mtime_ns))
    return tuple(sorted(found))
