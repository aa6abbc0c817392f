"""A relay between a client and a server, that notes when the first request came and the last answer went."""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from socketserver import BaseRequestHandler, ThreadingTCPServer
from urllib.parse import urlsplit

from typing_extensions import override

BYTES = 64 * 1024


class Relay(ThreadingTCPServer):
    """Hands on what it receives, in both directions."""

    daemon_threads = True
    allow_reuse_address = True

    def __init__(self, port: int) -> None:
        """:param port: of the server, on this machine"""
        super().__init__(("127.0.0.1", 0), _Connection)
        self.server = ("127.0.0.1", port)
        self.forget()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}"

    @property
    def seconds(self) -> float:
        """Time from the first byte of the first request to the last byte of the last answer."""
        assert self._first is not None, "there was a request"
        return self._last - self._first

    def forget(self) -> None:
        """Begin anew."""
        self._first: float | None = None
        self._last = 0.0

    def note_request(self) -> None:
        if self._first is None:
            self._first = time.perf_counter()

    def note_answer(self) -> None:
        self._last = time.perf_counter()


class _Connection(BaseRequestHandler):
    server: Relay

    @override
    def handle(self) -> None:
        with socket.create_connection(self.server.server) as server:
            answers = threading.Thread(
                target=_hand_on, args=(server, self.request, self.server.note_answer), daemon=True
            )
            answers.start()
            _hand_on(self.request, server, self.server.note_request)
            answers.join()


def _hand_on(source: socket.socket, target: socket.socket, note: Callable[[], None]) -> None:
    """Until one of the two closes."""
    with suppress(OSError):
        while received := source.recv(BYTES):
            note()
            target.sendall(received)
    with suppress(OSError):
        target.shutdown(socket.SHUT_WR)


@contextmanager
def relay_to(url: str) -> Iterator[Relay]:
    """Run a relay to the server at the URL."""
    port = urlsplit(url).port
    assert port is not None, "the URL has a port"
    with Relay(port) as relay:
        thread = threading.Thread(target=relay.serve_forever, daemon=True)
        thread.start()
        try:
            yield relay
        finally:
            relay.shutdown()
            thread.join()
