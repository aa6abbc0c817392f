"""An app for a worker under test, to which SIGTERM comes at a moment that a test has chosen: once, while it
talks to a process of its pool.

``INTERRUPTED`` says when: ``writing``, when half of the first job is written; ``reading``, when half of what
comes back for it is read; ``unheard``, when the first batch is written, and nobody has read that it began.
"""

from __future__ import annotations

import os
import signal
from collections.abc import Callable
from typing import Any

from django.apps import AppConfig
from typing_extensions import override

BATCH = b"morango_celery.start_run"
"""A job that carries a batch out: that of a run which has only one."""
HEADER_BYTES = 4
"""Size of the header of a message in a pipe: its length. The content follows by a call of its own."""


class InterruptedConfig(AppConfig):
    name = "tests.faults.interrupted"

    @override
    def ready(self) -> None:
        from billiard import pool
        from celery.concurrency import asynpool

        self.moment: str | None = os.environ["INTERRUPTED"]
        self.has_written = False
        pool._get_send_offset = self.watch_writing(pool._get_send_offset)
        handler = asynpool.ResultHandler
        handler._recv_message = self.watch_reading(handler._recv_message, asynpool.__read__)

    def watch_writing(self, writer_of: Callable[[Any], Callable[..., int]]) -> Any:
        def watched_writer_of(connection: Any) -> Callable[..., int]:
            write = writer_of(connection)

            def watched(data: memoryview, offset: int) -> int:
                written = write(data, offset)
                self.has_written = True
                if len(data) == HEADER_BYTES:
                    self.reached("writing")
                elif BATCH in bytes(data):
                    self.reached("unheard")
                return written

            return watched

        return watched_writer_of

    def watch_reading(self, receive: Callable[..., Any], read: Callable[..., int]) -> Any:
        def watched_read(number: int, buffer: Any, size: int) -> int:
            count = read(number, buffer, size)
            if self.has_written and size == HEADER_BYTES:
                self.reached("reading")
            return count

        def watched_receive(handler: Any, *arguments: Any) -> Any:
            return receive(handler, *arguments, __read__=watched_read)

        return watched_receive

    def reached(self, moment: str) -> None:
        if moment == self.moment:
            self.moment = None
            signal.raise_signal(signal.SIGTERM)
