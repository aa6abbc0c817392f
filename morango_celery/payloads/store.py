"""Store of values in a backend. They are hashed, split and compressed, and checked when they are read."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Sequence
from typing import Any

from morango_celery.errors import CorruptPayloadError, MissingPayloadError
from morango_celery.payloads.backend import Backend, OnPruned, Pruned
from morango_celery.payloads.blobs import packed, unpacked
from morango_celery.payloads.cache import Cache
from morango_celery.payloads.conf import settings
from morango_celery.payloads.reference import Reference
from morango_celery.payloads.values import canonical, fresh, sha256

logger = logging.getLogger(__name__)

CHUNK_BYTES = 1024 * 1024
"""Size of the parts of a larger value. A reference names the size that its own value was split by."""
COMPRESS_BYTES = 8 * 1024
"""Size from which a part is compressed, if that makes it smaller."""
CACHE_BYTES = 32 * 1024 * 1024
"""Limit on a process's cache of the values that it has read."""
WARN_BYTES = 10 * 1024 * 1024
"""Size from which a value is stored with a warning in the log."""
ASK_FIRST_BYTES = 128 * 1024
"""Size from which asking for a value is quicker than sending it again."""


class PayloadStore:
    """Store that keeps each value once, under the hash of its content."""

    def __init__(self, backend: Backend) -> None:
        self.backend = backend
        self.cache = Cache()

    def put(self, value: Any, seconds: float | None = None) -> Reference:
        """Store a value, or extend the time to live of a stored one.

        :param seconds: time to keep it, from now on; None for `TTL_SECONDS`
        :raises TypeError, ValueError: JSON has nothing for it
        :raises PayloadStoreUnavailableError: nothing was stored
        Twice: safe; the value is stored once.
        """
        return self.put_all([canonical(value)], seconds)[0]

    def put_all(self, contents: Sequence[bytes], seconds: float | None = None) -> list[Reference]:
        """Store values by their canonical bytes, as `put` does, in as many requests as one value takes."""
        seconds = settings.TTL_SECONDS if seconds is None else seconds
        references, parts = [], {}
        for data in contents:
            size = len(data)
            if size >= WARN_BYTES:
                logger.warning(
                    "A value of %s bytes is stored as a payload. Each worker that resolves it holds all of "
                    "it in memory; perhaps the ids of what is in the database do as well.",
                    f"{size:,}",
                )
            reference = Reference(sha256(data), size, CHUNK_BYTES if size > CHUNK_BYTES else None)
            references.append(reference)
            for number, key in enumerate(reference.parts()):
                parts[key] = memoryview(data)[number * CHUNK_BYTES : (number + 1) * CHUNK_BYTES]
        missing: Iterable[str] = parts
        if sum(map(len, parts.values())) >= ASK_FIRST_BYTES:
            missing = self.backend.extend_ttl(parts, seconds)
        blobs = {key: self._packed(bytes(parts[key])) for key in missing}
        if blobs:
            self.backend.put(blobs, seconds)
        return references

    def _packed(self, part: bytes) -> bytes:
        compress = not self.backend.is_in_process and len(part) >= COMPRESS_BYTES
        return packed(part, compress=compress)

    def extend_ttl(self, references: Iterable[Reference], seconds: float | None = None) -> None:
        """Keep the values of references as long as if they were stored now. Missing values stay missing."""
        keys = {key for reference in references for key in reference.parts()}
        if keys:
            self.backend.extend_ttl(keys, settings.TTL_SECONDS if seconds is None else seconds)

    def get(self, reference: Reference) -> Any:
        """Return a value, made anew for each caller.

        :raises MissingPayloadError: the value, or a part of it, isn't stored
        :raises CorruptPayloadError: the stored bytes have another hash
        :raises PayloadStoreUnavailableError: the store can't be reached
        """
        if self.backend.is_in_process:
            return fresh(self._read(reference))
        data = self.cache.get(reference.sha256)
        if data is None:
            data = self._read(reference)
            self.cache.add(reference.sha256, data, CACHE_BYTES)
        return fresh(data)

    def _read(self, reference: Reference) -> bytes:
        keys = reference.parts()
        found = self.backend.get(keys)
        if len(found) < len(keys):
            raise MissingPayloadError(
                f"Payload {reference.sha256} is not in the store; {len(found)} of its {len(keys)} parts are. "
                "Its message waited for longer than TTL_SECONDS "
                f"({settings.TTL_SECONDS}); or was sent inside a transaction that isn't "
                "committed, or was rolled back (delay_on_commit sends after it); or this process has "
                "another store than its sender (BACKEND, LOCATION)."
            )
        most_bytes = reference.chunk_bytes or reference.size_bytes or CHUNK_BYTES
        try:
            pieces = [unpacked(found[key], most_bytes) for key in keys]
            data = pieces[0] if len(pieces) == 1 else b"".join(pieces)
        except ValueError as error:
            raise _corrupt(reference, str(error)) from error
        if sha256(data) != reference.sha256:
            raise _corrupt(reference, "it has another hash")
        return data

    def delete(self, sha256: str) -> int:
        """Remove a value, expired or not, and return the number of its parts."""
        return self.backend.delete(sha256)

    def prune(self, on_progress: OnPruned | None = None) -> Pruned:
        """Remove expired values. Safe at any moment, any number of times, on any machine.

        :param on_progress: called with the number and size of the blobs removed so far, now and then
        """
        return self.backend.prune(on_progress)


def _corrupt(reference: Reference, flaw: str) -> CorruptPayloadError:
    return CorruptPayloadError(
        f"Payload {reference.sha256} is not what was stored under this key: {flaw}. Its store was damaged, "
        f"or written to by others. `manage.py prune_payloads --delete {reference.sha256}` removes it; who "
        "sends the value the next time stores it anew."
    )
