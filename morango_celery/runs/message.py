"""The message that asks for an attempt, as far as that matters."""

from __future__ import annotations

from dataclasses import dataclass

ID_CHARACTERS = 64
"""How many of a message's id the ledger has."""


@dataclass(frozen=True)
class Message:
    """A message for a run or a batch."""

    id: str = ""
    """By it, one that was delivered again, or is tried again, is known from another one. At most
    `ID_CHARACTERS`; empty for nobody's."""
    retries: int = 0
    """How often it has been tried before, each time ended by the database."""
    is_redelivered: bool = False
    """Whether the worker that it was delivered to first was lost, or gave it back."""

    @property
    def was_lost(self) -> bool:
        """Whether a worker may have been lost with it."""
        return self.is_redelivered or self.retries > 0


NOBODYS = Message()
