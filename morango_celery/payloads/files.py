"""Backend in a folder that all machines see. A file's time of modification is the time at which it expires.

The current time is the file system's: the machines' own clocks may differ.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from tempfile import NamedTemporaryFile

from morango_celery.errors import PayloadStoreUnavailableError
from morango_celery.payloads.backend import OnPruned, Pruned

NEW = "new-"
"""Prefix of the names of files that are being written."""
FORGOTTEN_AFTER_SECONDS = 24 * 60 * 60
"""Age at which a file that was never completed is removed: no writer takes that long."""


class FilesBackend:
    """Backend that keeps each payload in a file.

    :param location: the folder. It has to exist: where it doesn't, it is probably not mounted.
    """

    is_in_process = False

    def __init__(self, location: str) -> None:
        self._root = Path(location)

    def extend_ttl(self, keys: Collection[str], seconds: float) -> set[str]:
        missing = set()
        with _outages():
            for key in keys:
                folder = self._folder_of(key)
                with _locked(folder) as now:
                    if not _extend_ttl(folder / key, now + seconds):
                        missing.add(key)
        return missing

    def put(self, blobs: Mapping[str, bytes], seconds: float) -> None:
        with _outages():
            for key, blob in blobs.items():
                folder = self._folder_of(key)
                with _locked(folder) as now:
                    is_there = _extend_ttl(folder / key, now + seconds)
                if not is_there:
                    _write(folder / key, blob, seconds)

    def get(self, keys: Collection[str]) -> dict[str, bytes]:
        found = {}
        with _outages():
            self._root.stat()
            for key in keys:
                with contextlib.suppress(FileNotFoundError):
                    found[key] = (self._root / key[:2] / key).read_bytes()
        return found

    def delete(self, sha256: str) -> int:
        with _outages():
            found = list((self._root / sha256[:2]).glob(f"{sha256}*"))
            for path in found:
                path.unlink(missing_ok=True)
        return len(found)

    def prune(self, on_progress: OnPruned | None = None) -> Pruned:
        blobs = size_bytes = 0
        with _outages():
            self._root.stat()
            for folder in self._root.glob("[0-9a-f][0-9a-f]"):
                with _locked(folder) as now:
                    for entry in list(os.scandir(folder)):
                        found = entry.stat()
                        patience = FORGOTTEN_AFTER_SECONDS if entry.name.startswith(NEW) else 0
                        if found.st_mtime + patience < now:
                            os.unlink(entry)
                            blobs += 1
                            size_bytes += found.st_size
                if on_progress is not None:
                    on_progress(Pruned(blobs, size_bytes))
        return Pruned(blobs, size_bytes)

    def _folder_of(self, key: str) -> Path:
        folder = self._root / key[:2]
        folder.mkdir(mode=0o700, exist_ok=True)
        return folder


@contextmanager
def _locked(folder: Path) -> Iterator[float]:
    """Lock a folder against others that look at, prolong or remove its files.

    Yields the file system's time, in seconds.
    """
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        os.utime(descriptor)
        yield os.fstat(descriptor).st_mtime
    finally:
        os.close(descriptor)


def _extend_ttl(path: Path, until: float) -> bool:
    try:
        if path.stat().st_mtime < until:
            os.utime(path, (until, until))
    except FileNotFoundError:
        return False
    return True


def _write(path: Path, blob: bytes, seconds: float) -> None:
    """Write a file atomically: nobody ever reads half of it, not after a power cut either.

    The lock is not held during the write. Another process may have written the same file meanwhile.
    """
    with NamedTemporaryFile(dir=path.parent, prefix=NEW, delete=False) as file:
        try:
            file.write(blob)
            file.flush()
            os.fsync(file.fileno())
            with _locked(path.parent) as now:
                until = now + seconds
                if _extend_ttl(path, until):
                    os.unlink(file.name)
                else:
                    os.utime(file.name, (until, until))
                    os.replace(file.name, path)
        except BaseException:
            with contextlib.suppress(FileNotFoundError):
                os.unlink(file.name)
            raise


@contextmanager
def _outages() -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise PayloadStoreUnavailableError(f"The folder of payloads can't be used: {error}") from error
