"""The relay that a sync over HTTP is timed by."""

from __future__ import annotations

import threading
import time
import urllib.request
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest
from typing_extensions import override

from bench.relay import BYTES, relay_to

ANSWER = bytes(range(256)) * (3 * BYTES // 256)
"""More than one piece."""


class _Answers(BaseHTTPRequestHandler):
    """Server that repeats its input, and adds to it."""

    def do_POST(self) -> None:
        told = self.rfile.read(int(self.headers["Content-Length"]))
        self.send_response(200)
        self.end_headers()
        self.wfile.write(told + ANSWER)

    @override
    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def url() -> Iterator[str]:
    with ThreadingHTTPServer(("127.0.0.1", 0), _Answers) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()
        thread.join()


def test_messages_through_a_relay_arrive_and_are_timed_from_first_to_last(
    url: str,
) -> None:
    with relay_to(url) as relay:
        before = time.perf_counter()
        for told in (b"first", ANSWER):
            with urllib.request.urlopen(relay.url, told) as answer:
                assert answer.read() == told + ANSWER
        both = relay.seconds
        assert 0 < both <= time.perf_counter() - before

        # When it begins anew, then the next request is the first
        relay.forget()
        with urllib.request.urlopen(relay.url, b"third") as answer:
            answer.read()
        assert 0 < relay.seconds < time.perf_counter() - before - both
