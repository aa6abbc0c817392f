"""Periodic recovery: every worker asks for it, so that lost messages wait for no operator and no schedule."""

from __future__ import annotations

from typing import Any

from celery import bootsteps

from morango_celery.conf import settings
from morango_celery.messaging.dispatch import ask_for_recovery

RECOVERIES_BEFORE_STALLED = 15
"""Number of a worker's requests for `recover_runs` in STALLED_AFTER_SECONDS; by default, one a minute."""

WRONG_CLOCK_SECONDS = 24 * 60 * 60
"""Error of a machine's clock up to which others don't take its messages for expired."""

WHAT_WAITS = "what waits"


class PeriodicRecovery(bootsteps.StartStopStep):
    """A bootstep that asks for `recover_runs` as the worker has connected to the broker, and at intervals.

    So messages that a broker has lost, or that nobody could send to it, wait for no operator and no schedule.
    """

    requires = {"celery.worker.consumer.tasks:Tasks"}

    def start(self, parent: Any) -> None:
        ask_for_recovery(WHAT_WAITS)
        seconds = settings.STALLED_AFTER_SECONDS / RECOVERIES_BEFORE_STALLED
        parent.timer.call_repeatedly(seconds, self.ask, (seconds,))  # as long as this connection lasts

    @staticmethod
    def ask(seconds: float) -> None:
        # With an expiry, so that messages don't pile up for ever if no process has time for them
        expires = max(seconds, WRONG_CLOCK_SECONDS)
        ask_for_recovery(WHAT_WAITS, expires=expires, retry=False)  # the event loop waits for this
