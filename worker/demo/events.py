"""Events from the device's process to the demo: a JSON object a line, on its standard output."""

from __future__ import annotations

import json
import sys
from typing import Any

STEP = "step"
"""A step begins: `text`, and `total` when it can be counted."""

PROGRESS = "progress"
"""Progress of the step: `done`."""

SENT = "sent"
"""Records are queued: `transfer_session_id`, and `counts` by model name."""

SYNCED = "synced"
"""Every record has arrived; the server merges and deserializes."""

RESULT = "result"
"""Success: the fields of `worker.demo.device.Result`."""


def emit(event: str, **data: Any) -> None:
    sys.stdout.write(json.dumps({"event": event, **data}) + "\n")
    sys.stdout.flush()


def parse(line: str) -> dict[str, Any]:
    """Read an event.

    :raises ValueError: the line isn't an event
    """
    event = json.loads(line)
    if not isinstance(event, dict) or "event" not in event:
        raise ValueError(f"no event: {line!r}")
    return event
