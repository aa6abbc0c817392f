"""Messages of a newer form than this version knows: a worker requeues them, for a newer one to take.

While a project is upgraded, workers of two versions read the same queue. A message that was requeued at once
would come to the same worker at once. So the worker keeps it for a moment, in which others read the queue.
It is never begun here: no attempt is counted.
"""

from __future__ import annotations

import logging
from collections import OrderedDict
from collections.abc import Mapping
from time import monotonic
from typing import Any

from morango_celery.conf import settings
from morango_celery.printable import printable
from morango_celery.version import FORM, FORM_HEADER, PAYLOAD_FORM, PAYLOAD_FORM_HEADER, __version__

logger = logging.getLogger(__name__)

KNOWN: Mapping[str, int] = {FORM_HEADER: FORM, PAYLOAD_FORM_HEADER: PAYLOAD_FORM}
"""Newest known form by the header that has a message's."""

HELD_SECONDS = 1.0
"""Time for which a message is kept. It costs a run a second or so for each worker of the older version that
is idle, at worst."""

MAX_HELD = 10
"""Number of such messages that are kept beside those of the worker's own work. With more, it takes no message
until it has requeued one; so a long queue of newer messages goes round slowly."""

UNSEEN_SECONDS = 60.0
"""Time after which a message that comes once more counts as another one."""

MAX_REMEMBERED = 10_000


def is_newer(message: Any) -> bool:
    """Return True if only a newer version knows the form of a sound message."""
    headers = message.headers or {}
    return "task" in headers and any((headers.get(name) or 0) > known for name, known in KNOWN.items())


class NewerMessages:
    """The messages of newer forms that a worker has at the moment, or had lately."""

    def __init__(self, consumer: Any) -> None:
        """
        :param consumer: Celery's, with the worker's timer and its number of messages to take at a time
        """
        self._consumer = consumer
        self._connection = 0
        self._held = 0
        self._seen: OrderedDict[str, tuple[float, float]] = OrderedDict()
        """Times at which messages first and last came, by their ids."""
        self._logged: set[tuple[str, int]] = set()

    def begin_connection(self) -> None:
        """Forget what is held: the broker delivers it again, now that its connection is lost."""
        self._connection += 1
        self._held = 0

    def hold(self, message: Any) -> None:
        """Keep a message for `HELD_SECONDS`, then requeue it.

        One about the ledger that nobody else has taken for STALLED_AFTER_SECONDS is dropped. There is no
        newer worker then, and the first one to come sends all open work again.
        """
        self._log(message.headers)
        if self._is_old(message.headers):
            message.ack_log_error(logger, self._consumer.connection_errors)
            return
        counts = self._held < MAX_HELD
        if counts:  # so that it takes no other message's place
            self._held += 1
            self._consumer.qos.increment_eventually()
        self._consumer.timer.call_after(HELD_SECONDS, self._requeue, (message, counts, self._connection))

    def _requeue(self, message: Any, counts: bool, connection: int) -> None:
        if connection != self._connection:
            return
        if counts:
            self._held -= 1
            self._consumer.qos.decrement_eventually()
        message.reject_log_error(logger, self._consumer.connection_errors, requeue=True)

    def _is_old(self, headers: Mapping[str, Any]) -> bool:
        now = monotonic()
        first, last = self._seen.pop(headers["id"], (now, now))
        if now - last > UNSEEN_SECONDS:
            first = now
        if FORM_HEADER in headers and now - first > settings.STALLED_AFTER_SECONDS:
            return True
        self._seen[headers["id"]] = (first, now)
        if len(self._seen) > MAX_REMEMBERED:
            self._seen.popitem(last=False)
        return False

    def _log(self, headers: Mapping[str, Any]) -> None:
        """Write one line for each kind and form of messages, however often they come."""
        form = max(headers.get(name) or 0 for name in KNOWN)
        if (headers["task"], form) in self._logged:
            return
        self._logged.add((headers["task"], form))
        logger.warning(
            "A message for %s is of form %s, which morango_celery %s doesn't know. It goes back to the queue "
            "for a worker of the version that sent it, and so do all others like it.",
            printable(headers["task"]),
            form,
            __version__,
        )
