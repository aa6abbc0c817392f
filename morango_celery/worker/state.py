"""State of a worker as Celery keeps it: its requests, and the signals at which it ends."""

from __future__ import annotations

from typing import Any

from morango_celery.celery_compat import REMAPS_SIGTERM, requests_of_worker

COLD_SIGNALS = ("SIGQUIT", "SIGTERM") if REMAPS_SIGTERM else ("SIGQUIT",)
"""Signals at which Celery ends a worker in bounded time. Without the remapping, SIGTERM is not among them: it
lets all batches end first."""


def all_have_begun() -> bool:
    """Return True if Celery has heard from the pool that each job it was given has begun."""
    return len(requests_of_worker("reserved")) <= len(requests_of_worker("active"))


def is_at_hand(message: Any) -> bool:
    """Return True if a message is acknowledged or rejected, or its task is in the hands of the worker."""
    task_id = message.headers.get("id")
    return message.acknowledged or any(request.id == task_id for request in requests_of_worker("reserved"))
