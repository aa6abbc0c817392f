"""Cache of the values that this process has read lately, bounded in bytes."""

from __future__ import annotations

import os
import threading
from collections import OrderedDict


class Cache:
    """Bytes by key, safe for threads. The least recently used ones make room.

    It holds bytes, never values: a caller may change the value that it is given. A forked process begins with
    an empty cache, and with a lock that no thread of its parent holds.
    """

    def __init__(self) -> None:
        self._clear()
        os.register_at_fork(after_in_child=self._clear)

    def _clear(self) -> None:
        self._lock = threading.Lock()
        self._found: OrderedDict[str, bytes] = OrderedDict()
        self.size_bytes = 0

    def get(self, key: str) -> bytes | None:
        with self._lock:
            data = self._found.get(key)
            if data is not None:
                self._found.move_to_end(key)
            return data

    def add(self, key: str, data: bytes, most_bytes: int) -> None:
        """Add a value's bytes.

        :param most_bytes: limit on the whole cache; a larger value isn't cached at all
        """
        with self._lock:
            if key not in self._found:
                self._found[key] = data
                self.size_bytes += len(data)
            while self.size_bytes > most_bytes:
                _, oldest = self._found.popitem(last=False)
                self.size_bytes -= len(oldest)

    def clear(self) -> None:
        with self._lock:
            self._found.clear()
            self.size_bytes = 0
