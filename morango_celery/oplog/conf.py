"""Settings ``MORANGO_CELERY_OPLOG``."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from typing_extensions import override

from morango_celery.conf import BYTES_RULE, LABELS_RULE, Section, labels, positive, problems_of


class _Settings(Section):
    """The section of the log of another project."""

    MODELS: tuple[str, ...] = ()
    """Labels (``app.Model``) of the models that are recorded in FILE."""

    FILE: str = ""
    """Path of the log that changes are recorded in."""

    ROTATE_BYTES: int = 64 * 1024 * 1024
    """Size at which that file is given another name, and a new one is begun."""

    NATURAL_KEYS: bool = False
    """Record natural keys in place of primary keys, where models have them."""

    INGEST_MODELS: tuple[str, ...] = ()
    """Labels (``app.Model``) of the models that a log may change. Without any, nothing is ingested."""

    _NAME = "MORANGO_CELERY_OPLOG"
    _RULES = {
        "MODELS": (labels, LABELS_RULE),
        "FILE": (lambda value: isinstance(value, str), "must be a path, as a text"),
        "ROTATE_BYTES": (positive, BYTES_RULE),
        "INGEST_MODELS": (labels, LABELS_RULE),
        "NATURAL_KEYS": (lambda value: isinstance(value, bool), "must be True or False"),
    }

    @override
    def _contradictions(self, configured: Mapping[str, Any]) -> Iterator[str]:
        if configured.get("MODELS") and not configured.get("FILE"):
            yield "MORANGO_CELERY_OPLOG has MODELS, but no FILE to record their changes in."


settings = _Settings()


def problems() -> list[str]:
    """Return the faults of ``settings.MORANGO_CELERY_OPLOG``, a sentence each."""
    return problems_of(settings)
