"""Writes recorded changes to the log, in their order, each once.

Who may write holds the row lock of the `RecorderFile`, and the lock of the file itself. The changes are
deleted and the file's new size is noted in one transaction, after the file was written: when the writer dies
in between, what the file has beyond the noted size is what need not be written again.
"""

from __future__ import annotations

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import BinaryIO

from django.db import transaction

from morango_celery.conf import settings
from morango_celery.deserialize.sql import take_write_lock
from morango_celery.oplog.models import RecordedChange, RecorderFile

CHUNK_LINES = 1000
ROTATED_FORMAT = "%Y%m%dT%H%M%S.%fZ"
"""What is added to the name of a file that is full: sorted by name, they are in the order of their lines."""


def write_out() -> int:
    """Append all changes that are committed and not written yet.

    :returns: how many lines
    :raises OSError: the file can't be written; the changes wait
    Twice: safe, also at the same time.
    """
    path = Path(settings.OPLOG_FILE).absolute()
    lines = 0
    while RecordedChange.objects.exists():
        with transaction.atomic():
            lines += _write_chunk(path)
    return lines


def _write_chunk(path: Path) -> int:
    take_write_lock()
    RecorderFile.objects.get_or_create(path=str(path))
    noted = RecorderFile.objects.select_for_update().get(path=str(path))
    written = 0
    with _locked(path) as file:
        status = os.fstat(file.fileno())
        is_same = (noted.device, noted.inode) == (str(status.st_dev), str(status.st_ino))
        end = noted.size_bytes if is_same and noted.size_bytes <= status.st_size else 0
        if end < status.st_size:
            written = _forget_what_is_written(file, end)
    changes = list(RecordedChange.objects.order_by("pk")[:CHUNK_LINES])
    if changes:
        _make_room(path, sum(len(change.text) + 1 for change in changes))
        with _locked(path) as file:
            file.write("".join(f"{change.text}\n" for change in changes).encode())
            file.flush()
            os.fsync(file.fileno())
            status = os.fstat(file.fileno())
        noted.device, noted.inode = str(status.st_dev), str(status.st_ino)
        noted.size_bytes = status.st_size
        noted.save()
        RecordedChange.objects.filter(pk__in=[change.pk for change in changes]).delete()
    return written + len(changes)


def _forget_what_is_written(file: BinaryIO, end: int) -> int:
    """Compare what the file has from `end` on with what waits, and end the file with a newline.

    :returns: how many lines a writer that died had written
    """
    file.seek(end)
    written = 0
    for content in file:
        text = content.decode("utf-8", "backslashreplace")
        if text.endswith("\n"):
            waiting = RecordedChange.objects.filter(text=text.removesuffix("\n")).order_by("pk").first()
            if waiting is not None:
                waiting.delete()
                written += 1
        elif RecordedChange.objects.filter(text__startswith=text).exists():
            file.truncate(file.tell() - len(content))  # half a line, which no reader has taken
            break
        else:
            file.write(b"\n")
            break
    file.flush()
    return written


def _make_room(path: Path, size_bytes: int) -> None:
    """Give a file that would become too large a name of its own; readers find the rest of it there."""
    with _locked(path) as file:
        size = os.fstat(file.fileno()).st_size
        if size and size + size_bytes > settings.OPLOG_ROTATE_BYTES:
            path.rename(f"{path}.{datetime.now(UTC):{ROTATED_FORMAT}}")


@contextmanager
def _locked(path: Path) -> Iterator[BinaryIO]:
    """The file, open for reading and appending, and locked against everyone who locks it."""
    while True:
        is_new = not path.exists()
        with path.open("a+b") as file:
            fcntl.flock(file, fcntl.LOCK_EX)
            if not _is_at(path, file):
                continue  # renamed in the meantime
            if is_new:
                _sync_folder(path.parent)
            yield file
            return


def _is_at(path: Path, file: BinaryIO) -> bool:
    try:
        return os.path.samestat(path.stat(), os.fstat(file.fileno()))
    except FileNotFoundError:
        return False


def _sync_folder(folder: Path) -> None:
    """Or a power cut may take the new name away."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
