"""FairPriorities up in a worker's INSTALLED_APPS, where a test wants records that are a danger to it."""

from __future__ import annotations

import contextlib
import os
import signal
import time
from collections.abc import Callable
from typing import Any

from django.apps import AppConfig
from typing_extensions import override


class PoisonAppConfig(AppConfig):
    name = "tests.poison_app"

    @override
    def ready(self) -> None:
        from worker.school.models import Learner

        harmless = Learner.save

        def save(learner: Learner, *args: Any, **kwargs: Any) -> None:
            WAYS.get(learner.username, lambda: None)()
            harmless(learner, *args, **kwargs)

        Learner.save = save  # type: ignore[assignment,method-assign]
        harmless_serialize = Learner.serialize

        def serialize(learner: Learner) -> dict[str, Any]:
            if learner.username.startswith(SERIALIZED):
                WAYS[learner.username.removeprefix(SERIALIZED)]()
            data: dict[str, Any] = harmless_serialize(learner)
            return data

        Learner.serialize = serialize


def sleep() -> None:
    """Take every exception for its own, as careless code does."""
    while True:
        with contextlib.suppress(Exception):
            time.sleep(0.05)


def sleep_and_swallow() -> None:
    while True:
        with contextlib.suppress(BaseException):
            time.sleep(0.05)


def eat() -> None:
    bytearray(1 << 60)


SERIALIZED = "serialized: "
"""The beginning of the names of learners that are a danger to their serializer."""

WAYS: dict[str, Callable[[], object]] = {
    "exits": lambda: os._exit(1),
    "is killed": lambda: os.kill(os.getpid(), signal.SIGKILL),
    "sleeps": sleep,
    "sleeps and swallows": sleep_and_swallow,
    "eats": eat,
}
