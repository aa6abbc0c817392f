"""The system's account of a process, and its signal to stop."""

from __future__ import annotations

import signal
import sys
from pathlib import Path
from typing import NoReturn


def peak_rss_mb(pid: int | None = None) -> float:
    """Return the peak memory of a process (this one by default), by Linux's account.

    ``getrusage`` won't do: it counts what the process was before its ``exec``, a copy of its parent.
    """
    for line in Path(f"/proc/{pid or 'self'}/status").read_text().splitlines():
        if line.startswith("VmHWM:"):
            return int(line.split()[1]) / 1024
    raise RuntimeError(f"The system keeps no account of the peak memory of process {pid or 'self'}.")


def stop_in_order() -> None:
    """Let SIGTERM unwind this process from here on, as Ctrl-C does: servers and workers end with it."""

    def unwind(number: int, _: object) -> NoReturn:
        sys.exit(128 + number)

    signal.signal(signal.SIGTERM, unwind)
