"""The message that asks for an attempt, reduced to the parts that attempts are counted by."""

from __future__ import annotations

from dataclasses import dataclass

WORKER_CHARACTERS = 300
"""Number of characters of a worker's name that the ledger keeps."""
ID_CHARACTERS = 64
"""Number of characters of a message's id that the ledger keeps."""


@dataclass(frozen=True)
class Message:
    """A message for a run or a batch."""

    id: str = ""
    """Unchanged when the message is delivered again or retried. At most `ID_CHARACTERS`; empty for none."""
    retries: int = 0
    """Number of earlier tries, each of which the database ended."""
    is_redelivered: bool = False
    """True if the worker that it was delivered to first was lost, or requeued it."""
    worker: str = ""
    """Worker that it was delivered to, and the id of its process, for readers; empty if it is not known."""

    @property
    def was_lost(self) -> bool:
        """True if a worker may have been lost with the message."""
        return self.is_redelivered or self.retries > 0


NOBODYS = Message()
