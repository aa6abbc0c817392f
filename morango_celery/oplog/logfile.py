"""Writes recorded changes to the log, in their order, each once.

Who may write holds the row lock of the `RecorderFile`, and the lock of the file itself. The changes are
deleted and the file's new size is noted in one transaction, after the file was written. When the writer dies
in between, what the file has beyond the noted size need not be written again: the next writer notes that
first, in a transaction of its own.
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

from morango_celery.deserialization.sql import take_write_lock
from morango_celery.oplog.conf import settings
from morango_celery.oplog.lines import printable
from morango_celery.oplog.models import OutboxChange, RecorderFile
from morango_celery.oplog.regular import open_regular
from morango_celery.oplog.sql import first_in_outbox
from morango_celery.stream import Items, WeighedBuffer

CHUNK_LINES = 1000
CHUNK_BYTES = 8 * 1024 * 1024
"""How much is written, or looked through, at a time. A line that is larger is taken by itself."""
ROTATED_FORMAT = "%Y%m%dT%H%M%S.%fZ"
"""What is added to the name of a file that is full: sorted by name, they are in the order of their lines."""


def write_out() -> int:
    """Append all changes that are committed and not written yet.

    :returns: how many lines
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
    """Compare what the file has beyond the noted size with what waits, and end the file with a newline.

    :returns: how many lines a writer that died had written
    """
    written = 0
    with _locked(path) as file:
        end = noted.size_bytes if _is_as_noted(file, noted) else 0
        file.seek(end)
        sized = ((line, len(line)) for line in file)
        for lines in Items(sized) | WeighedBuffer(CHUNK_LINES, CHUNK_BYTES):
            last = lines[-1]
            if not last.endswith(b"\n"):
                lines.pop()
                if OutboxChange.objects.filter(text__startswith=_text(last)).exists():
                    file.truncate(file.tell() - len(last))  # half a line, which no reader has taken
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
    """Return a text that every database can compare, and that no change has if no recorder wrote the line."""
    return printable(line.decode("utf-8", "backslashreplace"))


def _write_chunk(path: Path, noted: RecorderFile) -> int:
    changes = first_in_outbox(CHUNK_LINES, CHUNK_BYTES)
    content = "".join(f"{text}\n" for _, text in changes).encode()
    with _locked(path) as file:
        if not _is_as_noted(file, noted) or noted.size_bytes < os.fstat(file.fileno()).st_size:
            return 0  # another one has died in the meantime
        if noted.size_bytes and noted.size_bytes + len(content) > settings.ROTATE_BYTES:
            path.rename(_rotated(path))  # readers find the rest of it there
    with _locked(path) as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())
        _note(file, noted)
    OutboxChange.objects.filter(pk__in=[pk for pk, _ in changes]).delete()
    return len(changes)


def _rotated(path: Path) -> Path:
    """Return a name that comes behind those that there are, though the clock may have been set back since."""
    moment = datetime.now(UTC)
    for entry in path.parent.iterdir():
        with suppress(ValueError):
            added = entry.name.removeprefix(f"{path.name}.")
            there = datetime.strptime(added, ROTATED_FORMAT).replace(tzinfo=UTC)
            moment = max(moment, there + timedelta(microseconds=1))
    return path.with_name(f"{path.name}.{moment:{ROTATED_FORMAT}}")


def _is_as_noted(file: BinaryIO, noted: RecorderFile) -> bool:
    """Whether it is the file of the note, and has at least what had been written to it."""
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
    """The file, open for reading and appending, and locked against everyone who locks it."""
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
    """Or a power cut may take the new name away."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
