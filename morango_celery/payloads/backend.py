"""What keeps the bytes: the interface, through which one suite of tests drives every backend."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import NamedTuple, Protocol


class Pruned(NamedTuple):
    """What was removed."""

    blobs: int
    size_bytes: int


class Backend(Protocol):
    """Keeps blobs of bytes under keys that say their content: one key never stands for two contents.

    Every method may be called by any number of processes and threads at once, in whatever order, `prune`
    included: a blob that `extend_ttl` or `put` has promised to keep is there until the time is up.

    Every method raises `PayloadStoreUnavailableError` when what is behind it can't be reached.
    """

    is_in_process: bool
    """Whether its bytes are in this process: then they aren't compressed, and no cache holds them again."""

    def extend_ttl(self, keys: Collection[str], seconds: float) -> set[str]:
        """Keep those that are there for at least so long from now.

        :returns: the keys that are not there
        """

    def put(self, blobs: Mapping[str, bytes], seconds: float) -> None:
        """Have these, and keep them for at least so long from now. What is there already stays as it is."""

    def get(self, keys: Collection[str]) -> dict[str, bytes]:
        """Those of them that are there."""

    def delete(self, sha256: str) -> int:
        """Remove all whose keys begin with this, whoever needs them; returns how many there were."""

    def prune(self) -> Pruned:
        """Remove what nobody has asked to keep any longer."""
