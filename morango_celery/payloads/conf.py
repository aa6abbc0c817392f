"""Settings ``MORANGO_CELERY_PAYLOADS``."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from typing_extensions import override

from morango_celery.conf import BYTES_RULE, Section, positive, problems_of

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
