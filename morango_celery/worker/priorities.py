"""Fair message priorities: begun runs go before others, small ones before large ones, and none starves.

A run that fits one batch is carried out by the message that starts it, so such runs end in the order in which
they were asked for. One of a few batches ends soon after it has begun, however many wait to be started; and
none waits to be started because a large one is being carried out.

Celery's transport for Redis keeps a list for each of four priorities beside a queue, and reads all four with
one command, the first that has something in it first. So any worker reads them, as it is started, and a
message keeps its place when it is delivered again.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterator, Sequence
from itertools import cycle
from typing import TYPE_CHECKING, Any

from celery import bootsteps

from morango_celery.conf import batch_size_records

if TYPE_CHECKING:  # the bench's model of this needs no database
    from morango_celery.models import Run

PRIORITIES = (0, 3, 6, 9)
"""The transport's own, the most urgent first. What was sent without one, and all that isn't ours, is among
the first too."""

STARTING = 3
"""The priority of messages that start runs, of whatever size these turn out to be."""

BEGUN = (0, 6, 9)
"""The priorities of the messages of runs that have begun, by their size."""

LARGEST_BATCHES = (5, 50)
"""How many batches' records the runs of each of these have at most, but for the last one's."""

READS_PER_TURN = 8
"""Of so many messages that a worker takes, one may be of a less urgent kind, though more urgent ones wait."""


def priority(run: Run) -> int:
    """Return that of the run's messages: by how many records it has handed out so far, for it knows of no
    more."""
    if run.state == run.State.PENDING:
        return STARTING
    return priority_of(run.records / batch_size_records())


def priority_of(batches: float) -> int:
    """Return that of a begun run of that size."""
    return BEGUN[bisect_left(LARGEST_BATCHES, batches)]


def orders(steps: Sequence[int]) -> Iterator[list[int]]:
    """The orders to read the lists in: mostly `steps`, and each of the others first when it is its turn."""
    found = []
    for step in steps[1:]:
        found += [list(steps)] * (READS_PER_TURN - 1)
        found.append([step, *(other for other in steps if other != step)])
    return cycle(found or [list(steps)])


class FairPriorities(bootsteps.StartStopStep):
    """Lets a worker begin with another list now and then: else small runs, if only enough of them come, would
    keep a large one waiting for ever, and what other tasks a queue has would keep runs from being started.

    Only where the broker is Redis; other transports have no such lists.
    """

    requires = {"celery.worker.consumer.tasks:Tasks"}

    def start(self, parent: Any) -> None:
        channel = parent.task_consumer.channel
        ask = getattr(channel, "_brpop_start", None)
        if ask is None:
            return
        usual = channel.priority_steps
        turns = orders(usual)

        def ask_in_turn(timeout: float | None = None) -> None:
            channel.priority_steps = next(turns)
            channel.priority = int  # not looked up among the steps, which are in no order now
            try:
                ask(timeout)
            finally:
                channel.priority_steps = usual  # by which messages are put back
                del channel.priority

        channel._brpop_start = ask_in_turn
