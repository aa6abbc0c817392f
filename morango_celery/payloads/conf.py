"""Settings ``MORANGO_CELERY_PAYLOADS``."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from typing_extensions import override

from morango_celery.conf import BYTES_RULE, Section, not_negative, positive, problems_of

BACKENDS = ("database", "redis", "files", "memory")


class _Settings(Section):
    """The section of large arguments of tasks."""

    BACKEND: str = "database"
    """Store of the large arguments of a `PayloadTask`: ``database``, ``redis``, ``files`` or ``memory``."""

    LOCATION: str = ""
    """The URL of ``redis``, or the folder of ``files``, which all machines see. The others need none."""

    MIN_BYTES: int = 4 * 1024
    """An argument of so many bytes, as JSON, or more travels as a reference."""

    MAX_MESSAGE_BYTES: int = 128 * 1024
    """Limit on all arguments of a message together, those of linked tasks included. Above it smaller ones are
    stored too, the largest first. A message that is still too large is refused when it is sent."""

    CHUNK_BYTES: int = 1024 * 1024
    """Size of the parts in which a larger value is stored."""

    WARN_BYTES: int = 10 * 1024 * 1024
    """A value of so many bytes or more is stored with a warning in the log."""

    COMPRESS_BYTES: int = 8 * 1024
    """A part of a value of so many bytes or more is compressed, if that makes it smaller."""

    CACHE_BYTES: int = 32 * 1024 * 1024
    """Size of a process's cache of the values that it has read; 0 for none."""

    TTL_SECONDS: int = 7 * 24 * 60 * 60
    """Time for which a value is kept after the last message that refers to it is due. It has to be longer
    than any message waits in a queue."""

    _NAME = "MORANGO_CELERY_PAYLOADS"
    _RULES = {
        "BACKEND": (
            lambda value: value in BACKENDS,
            'must be "database", "redis", "files" or "memory"',
        ),
        "LOCATION": (lambda value: isinstance(value, str), "must be a URL or a path, as a text"),
        "MIN_BYTES": (positive, BYTES_RULE),
        "MAX_MESSAGE_BYTES": (positive, BYTES_RULE),
        "CHUNK_BYTES": (
            lambda value: positive(value) and 1024 <= value <= 256 * 1024 * 1024,
            "must be a whole number of bytes from 1024 (1 KiB) to 268435456 (256 MiB)",
        ),
        "WARN_BYTES": (positive, BYTES_RULE),
        "COMPRESS_BYTES": (positive, BYTES_RULE),
        "CACHE_BYTES": (not_negative, "must be a whole number of bytes, 0 or more"),
        "TTL_SECONDS": (positive, "must be a whole number of seconds above 0"),
    }

    @override
    def _contradictions(self, configured: Mapping[str, Any]) -> Iterator[str]:
        if configured.get("BACKEND") in ("redis", "files") and not configured.get("LOCATION"):
            yield (
                f"MORANGO_CELERY_PAYLOADS has BACKEND {configured['BACKEND']!r}, but no LOCATION that says "
                "where that is."
            )


settings = _Settings()


def problems() -> list[str]:
    """Return the faults of ``settings.MORANGO_CELERY_PAYLOADS``, a sentence each."""
    return problems_of(settings)
