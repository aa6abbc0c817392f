"""Format of stored bytes: compressed where that helps. The first byte says if they are."""

from __future__ import annotations

import zstandard

PLAIN = b"p"
ZSTANDARD = b"z"

LEVEL = 1
WORTH_IT = 0.9
"""Compressed size in relation to the plain one. Bytes that shrink less stay plain, and are read sooner."""


def packed(data: bytes, *, compress: bool) -> bytes:
    if compress:
        smaller = zstandard.compress(data, LEVEL)
        if len(smaller) < WORTH_IT * len(data):
            return ZSTANDARD + smaller
    return PLAIN + data


def unpacked(blob: bytes, most_bytes: int) -> bytes:
    """Return the bytes that `packed` was given.

    :param most_bytes: a limit on their size, so that a damaged blob takes no more memory
    :raises ValueError: `packed` has not made this blob
    """
    kind = blob[:1]
    if kind == PLAIN:
        return blob[1:]
    data = memoryview(blob)[1:]
    if kind != ZSTANDARD:
        raise ValueError(f"it begins with {kind!r}")
    try:
        if zstandard.frame_content_size(data) > most_bytes:
            raise ValueError("it is larger than the reference says")
        return zstandard.ZstdDecompressor().decompress(data, allow_extra_data=False)
    except zstandard.ZstdError as error:
        raise ValueError(str(error)) from error
