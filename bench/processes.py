"""What the system tells of a process."""

from __future__ import annotations

from pathlib import Path


def peak_rss_mb(pid: int | None = None) -> float:
    """The most memory that a process (this one by default) had at any time, by Linux's account.

    ``getrusage`` won't do: it counts what the process was before its ``exec``, a copy of its parent.
    """
    for line in Path(f"/proc/{pid or 'self'}/status").read_text().splitlines():
        if line.startswith("VmHWM:"):
            return int(line.split()[1]) / 1024
    raise RuntimeError(f"The system keeps no account of the peak memory of process {pid or 'self'}.")
