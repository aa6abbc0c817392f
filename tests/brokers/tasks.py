"""Task of a project with an argument that is too large for a message."""

from __future__ import annotations

import logging
from typing import Any

from celery import shared_task

from morango_celery.payloads import PayloadTask

logger = logging.getLogger(__name__)

PAUSE_SECONDS = 2


@shared_task(bind=True, base=PayloadTask, name="tests.brokers.count")
def count(self: Any, values: list[int]) -> None:
    """Log the number of values, at the second try."""
    if self.request.retries == 0:
        raise self.retry(countdown=PAUSE_SECONDS)
    logger.warning("%s values", len(values))
