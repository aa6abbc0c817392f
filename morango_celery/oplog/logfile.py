"""Writer of recorded changes to the log, in their order, each once.

The writer holds the row lock of the `RecorderFile`, and the lock of the file itself. After it has written
the file, it deletes the changes and stores the file's new size in one transaction. If it dies in between,
the lines beyond the stored size need not be written again: the next writer stores that first, in a
transaction of its own.
"""

from __future__ import annotations

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import BinaryIO

from django.db import transaction

from morango_celery.deserialization.locks import take_write_lock
from morango_celery.oplog.conf import settings
from morango_celery.oplog.lines import printable
from morango_celery.oplog.models import OutboxChange, RecorderFile
from morango_celery.oplog.regular import open_regular
from morango_celery.oplog.sql import first_in_outbox
from morango_celery.stream import chunked_by_weight

CHUNK_LINES = 1000
CHUNK_BYTES = 8 * 1024 * 1024
"""Size of a chunk that is written, or compared, at a time. A larger line is a chunk of its own."""
ROTATED_FORMAT = "%Y%m%dT%H%M%S.%fZ"
"""Suffix of a full file's name. Files sorted by name are in the order of their lines."""


def write_out() -> int:
    """Append all committed changes that are not written yet.

    :returns: the number of lines
    :raises OSError: the file can't be written, or is no regular one; the changes wait
    Twice: safe, also at the same time.
    """
    path = Path(settings.FILE).absolute()
    lines = 0
    while OutboxChange.objects.exists():
        with transaction.atomic():
            lines += _note_what_is_written(path, _exclusively(path))
        with transaction.atomic():
            lines += _write_chunk(path, _exclusively(path))
    return lines


def _exclusively(path: Path) -> RecorderFile:
    take_write_lock()
    RecorderFile.objects.get_or_create(path=str(path))
    return RecorderFile.objects.select_for_update().get(path=str(path))


def _note_what_is_written(path: Path, noted: RecorderFile) -> int:
    """Delete waiting changes that the file has beyond its noted size, and end the file with a newline.

    :returns: the number of lines that a dead writer had written
    """
    written = 0
    with _locked(path) as file:
        end = noted.size_bytes if _is_as_noted(file, noted) else 0
        file.seek(end)
        sized = ((line, len(line)) for line in file)
        for lines in chunked_by_weight(sized, CHUNK_LINES, CHUNK_BYTES):
            last = lines[-1]
            if not last.endswith(b"\n"):
                lines.pop()
                if OutboxChange.objects.filter(text__startswith=_text(last)).exists():
                    file.truncate(file.tell() - len(last))  # half a line; no reader has taken it
                else:
                    file.write(b"\n")
            texts = [_text(line.removesuffix(b"\n")) for line in lines]
            waiting = OutboxChange.objects.filter(text__in=texts)
            ids = {change.text: change.pk for change in waiting}
            written += OutboxChange.objects.filter(pk__in=list(ids.values())).delete()[0]
        file.flush()
        _note(file, noted)
    return written


def _text(line: bytes) -> str:
    """Return a line as text that every database can compare. No change equals a line of another writer."""
    return printable(line.decode("utf-8", "backslashreplace"))


def _write_chunk(path: Path, noted: RecorderFile) -> int:
    changes = first_in_outbox(CHUNK_LINES, CHUNK_BYTES)
    content = "".join(f"{text}\n" for _, text in changes).encode()
    with _locked(path) as file:
        if not _is_as_noted(file, noted) or noted.size_bytes < os.fstat(file.fileno()).st_size:
            return 0  # another writer has died in the meantime
        if noted.size_bytes and noted.size_bytes + len(content) > settings.ROTATE_BYTES:
            path.rename(_rotated(path))  # readers find its rest under the new name
    with _locked(path) as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())
        _note(file, noted)
    OutboxChange.objects.filter(pk__in=[pk for pk, _ in changes]).delete()
    return len(changes)


def _rotated(path: Path) -> Path:
    """Return a name that sorts behind those of all rotated files, even if the clock was set back."""
    moment = datetime.now(UTC)
    for entry in path.parent.iterdir():
        with suppress(ValueError):
            added = entry.name.removeprefix(f"{path.name}.")
            there = datetime.strptime(added, ROTATED_FORMAT).replace(tzinfo=UTC)
            moment = max(moment, there + timedelta(microseconds=1))
    return path.with_name(f"{path.name}.{moment:{ROTATED_FORMAT}}")


def _is_as_noted(file: BinaryIO, noted: RecorderFile) -> bool:
    """Return True if this is the noted file, and it is no smaller than noted."""
    status = os.fstat(file.fileno())
    is_same = (noted.device, noted.inode) == (str(status.st_dev), str(status.st_ino))
    return is_same and noted.size_bytes <= status.st_size


def _note(file: BinaryIO, noted: RecorderFile) -> None:
    status = os.fstat(file.fileno())
    noted.device, noted.inode = str(status.st_dev), str(status.st_ino)
    noted.size_bytes = status.st_size
    noted.save()


@contextmanager
def _locked(path: Path) -> Iterator[BinaryIO]:
    """Open the file for reading and appending, and lock it against other writers."""
    while True:
        is_new = not path.exists()
        with open(path, "a+b", opener=open_regular) as file:
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
    """Flush a folder to disk: otherwise a power cut may lose the new name."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
