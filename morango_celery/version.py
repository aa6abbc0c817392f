"""Versions of this package, of the ledger's rows, and of messages."""

from __future__ import annotations

__version__ = "0.2.0"

FORM = 1
"""Form of the runs, batches, comparisons and messages that this version writes, and the newest that it knows.

It grows by one with each version that gives a row another meaning, such as a new state, or a message other
arguments. Workers leave rows and messages of a newer form to workers of newer versions.
"""

FORM_HEADER = "morango_celery_form"
"""Name of the header that has the form of one of our messages; without it, a message is of the first form."""

PAYLOAD_FORM = 1
"""The same for references to payloads, in messages of any project's tasks."""

PAYLOAD_FORM_HEADER = "payloads_form"


def current_form() -> int:
    """Return `FORM`, as the default of a column: a migration then names this function, and not the number."""
    return FORM
