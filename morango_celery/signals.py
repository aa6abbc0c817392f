"""Signals that the host project may connect to."""

from __future__ import annotations

from django.dispatch import Signal

run_finished = Signal()
"""Sent when a run has ended, after its last commit. Arguments: ``run`` (the ledger row).

Sent a second time only if the first sender died, or a receiver raised, before that was noted.
"""
