"""Bytes as a backend keeps them: compressed, where that helps. The first byte says which."""

from __future__ import annotations

import zstandard

PLAIN = b"p"
ZSTANDARD = b"z"

LEVEL = 1
WORTH_IT = 0.9
"""What is hardly smaller is kept as it is, and read sooner."""


def packed(data: bytes, *, compress: bool) -> bytes:
    if compress:
        smaller = zstandard.compress(data, LEVEL)
        if len(smaller) < WORTH_IT * len(data):
            return ZSTANDARD + smaller
    return PLAIN + data


def unpacked(blob: bytes, most_bytes: int) -> bytes:
    """
    :param most_bytes: no more is ever made of it
    :raises ValueError: these are no bytes of ours
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
