"""What travels in place of a value."""

from __future__ import annotations

import base64
import binascii
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TypeGuard

from morango_celery.errors import RefusedMessageError

SHA256_DIGITS = 64
MOST_CHUNKS = 100_000
"""Of one value; a message that speaks of more is none of ours."""


@dataclass(frozen=True)
class Reference:
    """Says which value is meant, by the hash of its content.

    As JSON it is an object; but what makes it a reference is where it stands: a message says in a header of
    its own which arguments are references, so no value that anybody sends is ever taken for one.
    """

    sha256: str
    """Of the value's canonical bytes, as 64 hex digits."""
    size_bytes: int | None = None
    """Of these; None when only who keeps the value knows."""
    chunk_bytes: int | None = None
    """How many of these are stored together; None for all."""

    def parts(self) -> list[str]:
        """The keys that a backend has the value under, in order."""
        return [self.sha256] if self.chunk_bytes is None else list(self._parts())

    def _parts(self) -> Iterator[str]:
        assert self.chunk_bytes is not None, "it is split"
        assert self.size_bytes is not None, "what is split has a size"
        for number in range(-(-self.size_bytes // self.chunk_bytes)):
            # With the chunks' size: else a value stored after that was changed would be mixed from both
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
        """:raises RefusedMessageError: this is no reference"""
        match value:
            case {"payload": str() as short, **more} if sha256 := _in_full(short):
                size_bytes, chunk_bytes = more.pop("bytes", None), more.pop("chunk", None)
                if not more and _is_size(size_bytes) and _is_size(chunk_bytes):
                    found = cls(sha256, size_bytes, chunk_bytes)
                    if chunk_bytes is None or found._has_chunks():
                        return found
        raise RefusedMessageError(f"This is no reference to a payload: {value!r:.200}.")

    def _has_chunks(self) -> bool:
        if not self.size_bytes or not self.chunk_bytes:
            return False
        return self.chunk_bytes <= self.size_bytes <= self.chunk_bytes * MOST_CHUNKS


def _shortened(sha256: str) -> str:
    """As 43 characters: Redis holds all messages in memory."""
    return base64.urlsafe_b64encode(bytes.fromhex(sha256)).decode().rstrip("=")


def _in_full(short: str) -> str | None:
    try:
        found = base64.urlsafe_b64decode(f"{short}=").hex()
    except (binascii.Error, ValueError):
        return None
    return found if len(found) == SHA256_DIGITS and _shortened(found) == short else None


def _is_size(value: object) -> TypeGuard[int | None]:
    return value is None or (isinstance(value, int) and not isinstance(value, bool) and 0 <= value < 2**63)
