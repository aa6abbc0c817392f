"""Payloads in a folder that all machines see; until when a file is kept is its time of modification."""

from __future__ import annotations

import contextlib
import fcntl
import os
import time
from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from tempfile import NamedTemporaryFile

from morango_celery.errors import PayloadStoreUnavailableError
from morango_celery.payloads.backend import Pruned

NEW = "new-"
"""What the names of files that are being written begin with."""
FORGOTTEN_AFTER_SECONDS = 24 * 60 * 60
"""Nobody writes one file for that long."""


class FilesBackend:
    """:param location: the folder, which has to be there: where it isn't, something was not mounted"""

    is_near = False

    def __init__(self, location: str) -> None:
        self._root = Path(location)

    def hold(self, keys: Collection[str], seconds: float) -> set[str]:
        missing = set()
        with _outages():
            for key in keys:
                with self._folder_of(key, fcntl.LOCK_SH) as folder:
                    if not _hold(folder / key, seconds):
                        missing.add(key)
        return missing

    def put(self, blobs: Mapping[str, bytes], seconds: float) -> None:
        with _outages():
            for key, blob in blobs.items():
                with self._folder_of(key, fcntl.LOCK_SH) as folder:
                    if not _hold(folder / key, seconds):
                        _write(folder / key, blob, seconds)

    def get(self, keys: Collection[str]) -> dict[str, bytes]:
        found = {}
        with _outages():
            self._root.stat()
            for key in keys:
                with contextlib.suppress(FileNotFoundError):
                    found[key] = (self._root / key[:2] / key).read_bytes()
        return found

    def drop(self, sha256: str) -> int:
        with _outages():
            found = list((self._root / sha256[:2]).glob(f"{sha256}*"))
            for path in found:
                path.unlink(missing_ok=True)
        return len(found)

    def prune(self) -> Pruned:
        blobs = size_bytes = 0
        with _outages():
            self._root.stat()
            for folder in self._root.glob("[0-9a-f][0-9a-f]"):
                with self._locked(folder, fcntl.LOCK_EX):
                    for entry in list(os.scandir(folder)):
                        found = entry.stat()
                        patience = FORGOTTEN_AFTER_SECONDS if entry.name.startswith(NEW) else 0
                        if found.st_mtime + patience < time.time():
                            os.unlink(entry)
                            blobs += 1
                            size_bytes += found.st_size
        return Pruned(blobs, size_bytes)

    @contextmanager
    def _folder_of(self, key: str, lock: int) -> Iterator[Path]:
        folder = self._root / key[:2]
        folder.mkdir(mode=0o700, exist_ok=True)
        with self._locked(folder, lock):
            yield folder

    @contextmanager
    def _locked(self, folder: Path, lock: int) -> Iterator[None]:
        """Writers share the folder; who prunes has it alone, so that nothing is removed that is just held."""
        descriptor = os.open(folder, os.O_RDONLY)
        try:
            fcntl.flock(descriptor, lock)
            yield
        finally:
            os.close(descriptor)


def _hold(path: Path, seconds: float) -> bool:
    until = time.time() + seconds
    try:
        if path.stat().st_mtime < until:
            os.utime(path, (until, until))
    except FileNotFoundError:
        return False
    return True


def _write(path: Path, blob: bytes, seconds: float) -> None:
    """All at once: nobody ever reads the half of it, not after a power cut either."""
    with NamedTemporaryFile(dir=path.parent, prefix=NEW, delete=False) as file:
        try:
            file.write(blob)
            file.flush()
            os.fsync(file.fileno())
            until = time.time() + seconds
            os.utime(file.name, (until, until))
            os.replace(file.name, path)
        except BaseException:
            os.unlink(file.name)
            raise


@contextmanager
def _outages() -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise PayloadStoreUnavailableError(f"The folder of payloads can't be used: {error}") from error
