"""Interface of all backends; one suite of tests drives each of them through it."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from typing import NamedTuple, Protocol


class Pruned(NamedTuple):
    """Number and size of removed blobs."""

    blobs: int
    size_bytes: int


OnPruned = Callable[[Pruned], None]


class Backend(Protocol):
    """Store of blobs of bytes. A key is derived from the content: it never stands for two contents.

    Every method, `prune` included, may be called by any number of processes and threads at once. A blob that
    `extend_ttl` or `put` has promised to keep is there until that time is up.

    Every method raises `PayloadStoreUnavailableError` when the backend's server or folder can't be reached.
    """

    is_in_process: bool
    """True if its bytes are in this process. They are neither compressed nor cached then."""

    def extend_ttl(self, keys: Collection[str], seconds: float) -> set[str]:
        """Keep the stored blobs among these for at least so many seconds from now.

        :returns: the keys that are not stored
        """

    def put(self, blobs: Mapping[str, bytes], seconds: float) -> None:
        """Store blobs for at least so many seconds from now. The bytes of a stored one are not replaced."""

    def get(self, keys: Collection[str]) -> dict[str, bytes]:
        """Return the stored blobs among these, by key."""

    def delete(self, sha256: str) -> int:
        """Remove all blobs whose keys begin with this, expired or not, and return their number."""

    def prune(self, on_progress: OnPruned | None = None) -> Pruned:
        """Remove expired blobs.

        :param on_progress: called with the number and size of those removed so far, now and then
        """
