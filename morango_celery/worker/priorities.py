"""Fair reading of priorities: a worker reads urgent messages first, and others often enough.

Celery's transport for Redis keeps a list for each of four priorities of a queue. It reads all four with one
command, which takes from the first list that isn't empty. So every worker reads them without any option, and
a message keeps its priority when it is delivered again.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from functools import partial
from itertools import cycle
from typing import Any

from celery import bootsteps

from morango_celery.celery_compat import reading_in_order, replace_request_for_messages, usual_order

READS_PER_TURN = 8
"""Number of reads of which one begins with a less urgent list."""


def orders(steps: Sequence[int]) -> Iterator[list[int]]:
    """Return, without end, the order in which to read the lists next.

    It is mostly `steps`. Once in `READS_PER_TURN` times, one of the less urgent lists comes first.
    """
    found = []
    for step in steps[1:]:
        found += [list(steps)] * (READS_PER_TURN - 1)
        found.append([step, *(other for other in steps if other != step)])
    return cycle(found or [list(steps)])


class FairPriorities(bootsteps.StartStopStep):
    """A bootstep with which a worker reads a less urgent list first now and then.

    Without it, enough small runs would keep a large one waiting for ever, and a project's other tasks in the
    same queue would keep runs from being started. It changes nothing for brokers other than Redis, whose
    transports have no such lists.
    """

    requires = {"celery.worker.consumer.tasks:Tasks"}

    def start(self, parent: Any) -> None:
        channel = parent.task_consumer.channel
        replace_request_for_messages(channel, partial(_asking_fairly, channel))


def _asking_fairly(channel: Any, ask: Callable[..., object]) -> Callable[..., object]:
    """Return a command that asks a channel's queues for a message, in another order each time."""
    turns = orders(usual_order(channel))

    def ask_fairly(timeout: float | None = None) -> None:
        with reading_in_order(channel, next(turns)):
            ask(timeout)

    return ask_fairly
