"""References, which travel in place of values."""

from __future__ import annotations

import base64
import binascii
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TypeGuard

from morango_celery.errors import InvalidMessageError

SHA256_DIGITS = 64
MAX_CHUNKS = 100_000
"""Limit on the parts of one value. A message that names more was not sent by this project."""


@dataclass(frozen=True)
class Reference:
    """Name of a stored value: the hash of its content, and its size.

    As JSON it is an object like others. A header of the message lists the arguments that are references, so
    no sent value is ever mistaken for one.
    """

    sha256: str
    """Hash of the value's canonical bytes, as 64 hex digits."""
    size_bytes: int | None = None
    """Number of these bytes; None if only the store knows it."""
    chunk_bytes: int | None = None
    """Number of bytes in a part; None if the value is stored whole."""

    def parts(self) -> list[str]:
        """Return the keys of the value's parts in a backend, in order."""
        return [self.sha256] if self.chunk_bytes is None else list(self._parts())

    def _parts(self) -> Iterator[str]:
        assert self.chunk_bytes is not None, "it is split"
        assert self.size_bytes is not None, "a value that is split has a size"
        for number in range(-(-self.size_bytes // self.chunk_bytes)):
            # The chunks' size is part of the key: else parts of two sizes would be mixed
            yield f"{self.sha256}.{self.chunk_bytes}.{number}"

    def as_json(self) -> dict[str, str | int]:
        found: dict[str, str | int] = {"payload": _shortened(self.sha256)}
        if self.size_bytes is not None:
            found["bytes"] = self.size_bytes
        if self.chunk_bytes is not None:
            found["chunk"] = self.chunk_bytes
        return found

    @classmethod
    def from_json(cls, value: object) -> Reference:
        """Read a reference.

        :raises InvalidMessageError: this is no reference
        """
        match value:
            case {"payload": str() as short, **more} if sha256 := _in_full(short):
                size_bytes, chunk_bytes = more.pop("bytes", None), more.pop("chunk", None)
                if not more and _is_size(size_bytes) and _is_size(chunk_bytes):
                    found = cls(sha256, size_bytes, chunk_bytes)
                    if chunk_bytes is None or found._has_chunks():
                        return found
        raise InvalidMessageError(f"This is no reference to a payload: {value!r:.200}.")

    def _has_chunks(self) -> bool:
        if not self.size_bytes or not self.chunk_bytes:
            return False
        return self.chunk_bytes <= self.size_bytes <= self.chunk_bytes * MAX_CHUNKS


def _shortened(sha256: str) -> str:
    """Return a hash as 43 characters: Redis holds all messages in memory."""
    return base64.urlsafe_b64encode(bytes.fromhex(sha256)).decode().rstrip("=")


def _in_full(short: str) -> str | None:
    try:
        found = base64.urlsafe_b64decode(f"{short}=").hex()
    except (binascii.Error, ValueError):
        return None
    return found if len(found) == SHA256_DIGITS and _shortened(found) == short else None


def _is_size(value: object) -> TypeGuard[int | None]:
    return value is None or (isinstance(value, int) and not isinstance(value, bool) and 0 <= value < 2**63)
