"""Waiting messages in Redis: a queue is a list for each priority of its messages."""

from __future__ import annotations

from redis import Redis

from morango_celery.messaging.priorities import PRIORITIES

QUEUE = "celery"
"""The one that messages are sent to."""


def list_of(priority: int, queue: str = QUEUE) -> str:
    """Return the name of the list that kombu keeps for it."""
    return f"{queue}\x06\x16{priority}" if priority else queue


def lists(queue: str = QUEUE) -> list[str]:
    """All lists of a queue, the most urgent first."""
    return [list_of(priority, queue) for priority in PRIORITIES]


def lengths(client: Redis) -> dict[int, int]:
    """Return the number of waiting messages of each priority that has any."""
    found = {priority: int(client.llen(list_of(priority))) for priority in PRIORITIES}
    return {priority: length for priority, length in found.items() if length}
