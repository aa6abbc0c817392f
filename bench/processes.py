"""What the system tells of a process."""

from __future__ import annotations

from pathlib import Path

import psutil


def peak_rss_mb(pid: int | None = None) -> float:
    """The most memory that a process (this one by default) had at any time, by Linux's account.

    ``getrusage`` won't do: it counts what the process was before its ``exec``, a copy of its parent.
    """
    for line in Path(f"/proc/{pid or 'self'}/status").read_text().splitlines():
        if line.startswith("VmHWM:"):
            return int(line.split()[1]) / 1024
    raise RuntimeError("The system keeps no account of a process's peak memory; the bench needs Linux.")


def peaks_of_group_mb(pid: int) -> list[float]:
    """The peaks of a process and of those that it started."""
    family = psutil.Process(pid)
    return [peak_rss_mb(process.pid) for process in [family, *family.children(recursive=True)]]
