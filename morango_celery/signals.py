"""Signals that the host project may connect to."""

from __future__ import annotations

from django.dispatch import Signal

run_finished = Signal()
"""Sent when a run has ended, after its last commit. Arguments: ``run`` (the ledger row).

Sent a second time only if the first sender died, or a receiver raised, before that was noted.
"""

first_pass_failed = Signal()
"""Sent when all records of a run were tried once, and some failed that are tried again. Arguments: ``run``.

A receiver can mend what they failed for first; their errors are in the Store. It is sent in the transaction
that hands them out again: what a receiver writes is committed with that, and so once for a run, whoever dies.
What a receiver raises fails the run.
"""
