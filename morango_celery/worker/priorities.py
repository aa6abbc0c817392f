"""Fair message priorities: begun runs go before others, small ones before large ones, and none starves.

A run that fits one batch is carried out by the message that starts it, so such runs end in the order in which
they were requested. A run of a few batches ends soon after it has begun, however many others wait to be
started. No run waits to be started because a large one is being carried out.

Celery's transport for Redis keeps a list for each of four priorities of a queue. It reads all four with one
command, which takes from the first list that isn't empty. So every worker reads them without any option, and
a message keeps its priority when it is delivered again.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from itertools import cycle
from typing import TYPE_CHECKING, Any

from celery import bootsteps

from morango_celery.celery_compat import replace_request_for_messages
from morango_celery.conf import batch_size_records

if TYPE_CHECKING:  # the bench models these priorities without a database
    from morango_celery.models import Run

PRIORITIES = (0, 3, 6, 9)
"""Priorities of the transport, the most urgent first. It gives 0 to messages without one, such as those of
other tasks."""

STARTING = 3
"""Priority of messages that start runs: their sizes are not known yet."""

BEGUN = (0, 6, 9)
"""Priorities of the messages of begun runs, from small to large."""

LARGEST_BATCHES = (5, 50)
"""Sizes, in full batches, up to which a run has the first and the second of `BEGUN`; above, the last."""

READS_PER_TURN = 8
"""Number of messages that a worker takes, of which one may be less urgent than others that wait."""


def priority(run: Run) -> int:
    """Return the priority of a run's messages, by the number of records that it has handed out so far.

    The records of later stages aren't counted yet.
    """
    if run.state == run.State.PENDING:
        return STARTING
    return priority_of(run.records / batch_size_records())


def priority_of(batches: float) -> int:
    """Return the priority of a begun run of this size."""
    return BEGUN[bisect_left(LARGEST_BATCHES, batches)]


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
    usual = channel.priority_steps
    turns = orders(usual)

    def ask_fairly(timeout: float | None = None) -> None:
        channel.priority_steps = next(turns)
        channel.priority = int  # kombu's own looks it up among the steps, which are not sorted now
        try:
            ask(timeout)
        finally:
            channel.priority_steps = usual  # messages are put back by these
            del channel.priority

    return ask_fairly
