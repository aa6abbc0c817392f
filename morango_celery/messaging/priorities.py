"""Priorities of messages: begun runs go before others, and small ones before large ones.

A run that fits one batch is carried out by the message that starts it, so such runs end in the order in which
they were requested. A run of a few batches ends soon after it has begun, however many others wait to be
started. `morango_celery.worker.priorities` sees to it that no run starves.
"""

from __future__ import annotations

from bisect import bisect_left
from typing import TYPE_CHECKING

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

MAX_BATCHES = (5, 50)
"""Sizes, in full batches, up to which a run has the first and the second of `BEGUN`; above, the last."""


def priority(run: Run) -> int:
    """Return the priority of a run's messages, by the number of records that it has handed out so far.

    The records of later stages aren't counted yet.
    """
    if run.state == run.State.PENDING:
        return STARTING
    return priority_of(run.records / batch_size_records())


def priority_of(batches: float) -> int:
    """Return the priority of a begun run of this size."""
    return BEGUN[bisect_left(MAX_BATCHES, batches)]
