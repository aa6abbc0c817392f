"""What the system tells of a process, and how it tells one to stop."""

from __future__ import annotations

import signal
import sys
from pathlib import Path
from typing import NoReturn


def peak_rss_mb(pid: int | None = None) -> float:
    """The most memory that a process (this one by default) had at any time, by Linux's account.

    ``getrusage`` won't do: it counts what the process was before its ``exec``, a copy of its parent.
    """
    for line in Path(f"/proc/{pid or 'self'}/status").read_text().splitlines():
        if line.startswith("VmHWM:"):
            return int(line.split()[1]) / 1024
    raise RuntimeError(f"The system keeps no account of the peak memory of process {pid or 'self'}.")


def stop_in_order() -> None:
    """From here on, SIGTERM unwinds this process as Ctrl-C does: servers and workers end with it."""

    def unwind(number: int, _: object) -> NoReturn:
        sys.exit(128 + number)

    signal.signal(signal.SIGTERM, unwind)
