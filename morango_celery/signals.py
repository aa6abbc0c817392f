"""Signals that the host project may connect to."""

from __future__ import annotations

from django.dispatch import Signal

run_finished = Signal()
"""Sent when a run has ended, after its last commit. Arguments: ``run`` (the ledger row).

Sent a second time only if the first sender died, or a receiver raised, before that was noted.
"""

first_pass_failed = Signal()
"""Sent when all records of a run were tried once, and some failed that are tried again. Arguments: ``run``.

A receiver can first mend the causes of the failures; their errors are in the Store. The signal is sent in the
transaction that hands the records out again. So a receiver's writes are committed with it, and once for a
run, even if a process dies. An error that a receiver raises fails the run.
"""
