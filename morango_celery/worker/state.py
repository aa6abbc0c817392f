"""State of a worker as Celery keeps it: its signals' handlers, its requests, and its wish to stop."""

from __future__ import annotations

import os
from typing import Any

from billiard.common import REMAP_SIGTERM
from celery.platforms import signals
from celery.worker import state

COLD_SIGNALS = ("SIGQUIT", "SIGTERM") if REMAP_SIGTERM == "SIGQUIT" else ("SIGQUIT",)
"""Signals at which Celery ends a worker in bounded time. Without the remapping, SIGTERM is not among them: it
lets all batches end first."""


def is_celerys_handler(name: str) -> bool:
    """Return False if a project has a handler of its own for the signal."""
    return getattr(signals[name], "__module__", None) == "celery.apps.worker"


def stop_warmly() -> None:
    """Have the worker stop at its next look, which its loop takes between two callbacks, never inside one."""
    state.should_stop = os.EX_OK


def all_have_begun() -> bool:
    """Return True if Celery has heard from the pool that each job it was given has begun."""
    return len(state.reserved_requests) <= len(state.active_requests)


def is_at_hand(message: Any) -> bool:
    """Return True if a message is settled, or its task is in the hands of the worker."""
    task_id = message.headers.get("id")
    return message.acknowledged or any(request.id == task_id for request in state.reserved_requests)
