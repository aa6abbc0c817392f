"""A server that accepts connections and never answers, as one that is frozen."""

from __future__ import annotations

import contextlib
import socket
from collections.abc import Iterator


@contextlib.contextmanager
def mute_server() -> Iterator[int]:
    """Yield the port of such a server. Whoever waits for it gets an error at the end."""
    accepted: list[socket.socket] = []
    with socket.create_server(("127.0.0.1", 0), backlog=50) as listening:
        port: int = listening.getsockname()[1]
        try:
            yield port
        finally:
            listening.setblocking(False)
            with contextlib.suppress(OSError):
                while True:
                    accepted.append(listening.accept()[0])
            for each in accepted:
                each.close()
