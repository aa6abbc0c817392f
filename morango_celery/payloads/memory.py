"""Backend in this process, meant for tests, for eager tasks, and for workers of one process."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Collection, Mapping

from morango_celery.payloads.backend import OnPruned, Pruned


class MemoryBackend:
    is_in_process = True

    def __init__(self, location: str = "") -> None:
        """Begin with an empty store.

        :param location: any text; tells stores of this kind apart
        """
        self._blobs: dict[str, bytes] = {}
        self._expires_at: dict[str, float] = {}
        self._renew_lock()
        os.register_at_fork(after_in_child=self._renew_lock)

    def _renew_lock(self) -> None:
        self._lock = threading.Lock()

    def extend_ttl(self, keys: Collection[str], seconds: float) -> set[str]:
        with self._lock:
            return self._extend_ttl(keys, seconds)

    def _extend_ttl(self, keys: Collection[str], seconds: float) -> set[str]:
        until = time.monotonic() + seconds
        missing = set()
        for key in keys:
            if key in self._blobs:
                self._expires_at[key] = max(self._expires_at[key], until)
            else:
                missing.add(key)
        return missing

    def put(self, blobs: Mapping[str, bytes], seconds: float) -> None:
        with self._lock:
            for key in self._extend_ttl(blobs, seconds):
                self._blobs[key] = blobs[key]
                self._expires_at[key] = time.monotonic() + seconds

    def get(self, keys: Collection[str]) -> dict[str, bytes]:
        with self._lock:
            return {key: self._blobs[key] for key in keys if key in self._blobs}

    def delete(self, sha256: str) -> int:
        with self._lock:
            found = [key for key in self._blobs if key.startswith(sha256)]
            return sum(self._remove(key) is not None for key in found)

    def prune(self, on_progress: OnPruned | None = None) -> Pruned:
        with self._lock:
            now = time.monotonic()
            over = [key for key, until in self._expires_at.items() if until < now]
            return Pruned(len(over), sum(len(self._remove(key) or b"") for key in over))

    def _remove(self, key: str) -> bytes | None:
        self._expires_at.pop(key, None)
        return self._blobs.pop(key, None)
