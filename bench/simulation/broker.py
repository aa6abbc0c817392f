"""The choice of the next message."""

from __future__ import annotations

from collections import deque
from collections.abc import Generator, Iterable
from typing import Any

from simpy import Environment, Event

from morango_celery.messaging.priorities import PRIORITIES
from morango_celery.worker.priorities import orders

Work = Generator[Event, Any, None]
"""The demand of a message."""


class Broker:
    """Lists of messages by priority, read by workers as `morango_celery.worker.priorities` has them do."""

    def __init__(self, environment: Environment, *, by_size: bool) -> None:
        """
        :param by_size: False for one list: first come, first served
        """
        self._environment = environment
        self._lists: dict[int, deque[Work]] = {priority: deque() for priority in PRIORITIES}
        self._orders: Iterable[list[int]] = iter(orders(PRIORITIES if by_size else PRIORITIES[:1]))
        self._by_size = by_size
        self._idle: deque[Event] = deque()

    def put(self, work: Work, priority: int) -> None:
        if self._idle:
            self._idle.popleft().succeed(work)
        else:
            self._lists[priority if self._by_size else PRIORITIES[0]].append(work)

    def get(self) -> Event:
        """Its value is the `Work`."""
        found = self._environment.event()
        for priority in next(iter(self._orders)):
            if self._lists[priority]:
                return found.succeed(self._lists[priority].popleft())
        self._idle.append(found)
        return found
