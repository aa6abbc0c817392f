"""Following of a sync from both ends: the device's events, then the server's ledger."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from queue import Empty, Queue
from threading import Thread
from typing import Any

from morango_celery.models import Run
from worker.demo import events
from worker.demo.display import Display
from worker.demo.processes import Process, StepError
from worker.demo.spoiling import Broken

LOOK_SECONDS = 0.1
STALL_SECONDS = 60
"""Time without progress after which a run is given up."""


@dataclass
class Sync:
    """Known facts of the sync."""

    transfer_session_id: str = ""
    sent: dict[str, int] = field(default_factory=dict)
    """Records by model name, as the device queued them."""
    broken: list[Broken] = field(default_factory=list)
    orphans: list[Broken] = field(default_factory=list)

    @property
    def run(self) -> Run | None:
        return Run.objects.filter(transfer_session_id=self.transfer_session_id).first()


def follow(device: Process, display: Display, check: Callable[[], None]) -> Sync:
    """Show the progress until the device has ended.

    :param check: called several times a second; an exception of it ends the following
    :raises StepError: the device failed, or the server's run did
    """
    sync = Sync()
    ledger: _Ledger | None = None
    for event in _events(device):
        check()
        match event:
            case None:
                if ledger is not None:
                    ledger.look()
            case {"event": events.STEP, "text": text}:
                display.begin(text, event.get("total"))
            case {"event": events.PROGRESS, "done": done}:
                display.progress(done)
            case {"event": events.SENT}:
                sync.transfer_session_id = event["transfer_session_id"]
                sync.sent = event["counts"]
            case {"event": events.SYNCED} if sync.transfer_session_id:
                display.begin("Server: Morango merges them into its Store")
                ledger = _Ledger(sync, display)
            case {"event": events.RESULT}:
                sync.broken = [Broken(**record) for record in event["broken"]]
                sync.orphans = [Broken(**record) for record in event["orphans"]]
    device.wait(check)
    if ledger is not None:
        ledger.look()
    display.end()
    return sync


def _events(device: Process) -> Iterator[dict[str, Any] | None]:
    """Yield the device's events until it closes its output, and None every `LOOK_SECONDS`."""
    lines: Queue[str | None] = Queue()

    def read() -> None:
        for line in device.output:
            lines.put(line)
        lines.put(None)

    Thread(target=read, daemon=True).start()
    while True:
        try:
            line = lines.get(timeout=LOOK_SECONDS)
        except Empty:
            yield None
            continue
        if line is None:
            return
        yield events.parse(line)


class _Ledger:
    """Progress of a sync's run."""

    def __init__(self, sync: Sync, display: Display) -> None:
        self._sync = sync
        self._display = display
        self._seen = False
        self._done = -1
        self._moved_at = time.monotonic()

    def look(self) -> None:
        """Show the run's progress.

        :raises StepError: the run failed, or has stopped moving
        """
        run = self._sync.run
        if run is None:
            return
        if not self._seen:
            self._seen = True
            self._moved_at = time.monotonic()
            self._display.begin("Workers: deserializing", sum(self._sync.sent.values()))
        if run.done != self._done:
            self._done = run.done
            self._moved_at = time.monotonic()
            self._display.progress(run.done)
        if run.state == Run.State.FAILED:
            raise StepError(f"The run could not go on: {run.error}")
        if not run.has_ended and time.monotonic() - self._moved_at > STALL_SECONDS:
            raise StepError(f"The run has not moved for {STALL_SECONDS} s: it is at {run.done} records.")
