"""Messages by which a worker compares a sync that Morango has deserialized."""

from __future__ import annotations

from morango_celery.comparison import shadow
from morango_celery.messaging.dispatch import send
from morango_celery.messaging.priorities import PRIORITIES
from morango_celery.messaging.task_names import COMPARE_SYNC


def send_next_comparison(*, again: bool = False) -> int:
    """Send a message for the next comparison that is due, if there is one.

    :param again: as for `shadow.next_due`
    :returns: the number of messages sent
    """
    comparison = shadow.next_due(again=again)
    if comparison is None:
        return 0
    description = f"comparison {comparison.pk}"
    if not send(COMPARE_SYNC, [comparison.pk], description, form=comparison.form, priority=PRIORITIES[-1]):
        return 0
    shadow.note_sent(comparison)
    return 1
