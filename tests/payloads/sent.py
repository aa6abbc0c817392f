"""A large argument and a small one, and the message that they travel in."""

from __future__ import annotations

from typing import Any

from redis import Redis

from morango_celery.payloads import PayloadStore
from morango_celery.payloads.memory import MemoryBackend
from tests.payloads.messages import Message, waiting

LARGE = [f"{number:032x}" for number in range(500)]

SMALL = ["small"]


def sent(broker: Redis) -> Message:
    (message,) = waiting(broker)
    return message


def reference_of(value: Any) -> tuple[str, int | None]:
    reference = PayloadStore(MemoryBackend()).put(value)
    return reference.sha256, reference.size_bytes
