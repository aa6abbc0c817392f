"""TCP proxy on loopback for faults of networks: it cuts connections, or swallows their bytes."""

from __future__ import annotations

import contextlib
import selectors
import socket
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from urllib.parse import urlsplit, urlunsplit

CHUNK_BYTES = 65536
HEARD_BYTES = 4096
"""Number of a client's bytes that are kept, to tell connections apart."""


@dataclass(eq=False)
class Link:
    """A client's connection, and the one to the server that stands for it."""

    client: socket.socket
    server: socket.socket
    heard: bytearray = field(default_factory=bytearray)
    """The client's last bytes."""
    is_swallowed: bool = False


class Proxy:
    """Proxy that passes bytes on until it is told otherwise. Methods return once they have taken effect."""

    def __init__(self, url: str) -> None:
        """:param url: of the server"""
        parts = urlsplit(url)
        self._server = (parts.hostname or "127.0.0.1", parts.port or 0)
        self._listener = socket.create_server(("127.0.0.1", 0))
        self._address = self._listener.getsockname()
        self.url = urlunsplit(parts._replace(netloc=f"127.0.0.1:{self._address[1]}"))
        self._links: dict[socket.socket, Link] = {}
        self._selector = selectors.DefaultSelector()
        self._lock = threading.Lock()
        self._wakeup_receiver, self._wakeup_sender = socket.socketpair()
        self._selector.register(self._wakeup_receiver, selectors.EVENT_READ)
        self._selector.register(self._listener, selectors.EVENT_READ)
        self._thread = threading.Thread(target=self._work, daemon=True)
        self._thread.start()

    def refuse(self) -> None:
        """Let nobody connect any more, as where no server listens."""
        with self._lock:
            self._selector.unregister(self._listener)
            self._listener.close()

    def accept(self) -> None:
        """Undo `refuse`."""
        with self._lock:
            self._listener = socket.create_server(self._address)
            self._selector.register(self._listener, selectors.EVENT_READ)

    def cut(self, saying: bytes = b"", *, but: bytes | None = None) -> int:
        """Close connections, those that are swallowed included.

        :param saying: of clients that have said this not long ago
        :param but: not of those that have said this
        :returns: how many there were
        """
        with self._lock:
            links = self._chosen(saying, but)
            for link in links:
                self._close(link)
        return len(links)

    def swallow(self, saying: bytes = b"") -> int:
        """Pass nothing on any more over connections that are there; both ends still take them for sound.

        :param saying: of clients that have said this not long ago
        :returns: how many there were
        """
        with self._lock:
            links = self._chosen(saying)
            for link in links:
                link.is_swallowed = True
        return len(links)

    def end(self) -> None:
        """Close all."""
        self._wakeup_sender.send(b"\0")
        self._thread.join()
        self.cut()
        for one in (self._listener, self._wakeup_receiver, self._wakeup_sender):
            one.close()
        self._selector.close()

    def _chosen(self, saying: bytes, but: bytes | None = None) -> list[Link]:
        return [
            link
            for link in set(self._links.values())
            if saying in link.heard and (but is None or but not in link.heard)
        ]

    def _work(self) -> None:
        while True:
            for key, _ in self._selector.select():
                with self._lock:
                    if key.fileobj is self._wakeup_receiver:
                        return
                    if key.fileobj is self._listener:
                        self._connect()
                    elif link := self._links.get(key.fileobj):  # type: ignore[call-overload]  # a socket
                        self._pass_on(link, key.fileobj)  # type: ignore[arg-type]

    def _connect(self) -> None:
        with contextlib.suppress(OSError):
            client, _ = self._listener.accept()
            try:
                server = socket.create_connection(self._server)
            except OSError:
                client.close()
                return
            link = Link(client, server)
            for one in (client, server):
                self._links[one] = link
                self._selector.register(one, selectors.EVENT_READ)

    def _pass_on(self, link: Link, source: socket.socket) -> None:
        try:
            data = source.recv(CHUNK_BYTES)
            if data and not link.is_swallowed:
                (link.server if source is link.client else link.client).sendall(data)
        except OSError:
            data = b""
        if source is link.client:
            link.heard += data
            del link.heard[:-HEARD_BYTES]
        if not data:
            self._close(link)

    def _close(self, link: Link) -> None:
        for one in (link.client, link.server):
            del self._links[one]
            self._selector.unregister(one)
            one.close()


@contextlib.contextmanager
def proxy_to(url: str) -> Iterator[Proxy]:
    """Start a proxy between this test's clients and a server."""
    proxy = Proxy(url)
    try:
        yield proxy
    finally:
        proxy.end()
