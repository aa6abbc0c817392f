"""Memory of a process' children."""

from __future__ import annotations

import contextlib
import re
from pathlib import Path


def peak_memory_bytes(parent_pid: int) -> int | None:
    """Return the largest peak of memory of a child of the process; None if it isn't known.

    Linux keeps each process' peak. Elsewhere psutil, if installed, tells the present size.
    """
    if Path("/proc/self/status").exists():
        return _peak_in_proc(parent_pid)
    try:
        import psutil
    except ImportError:
        return None
    with contextlib.suppress(psutil.Error):
        children = psutil.Process(parent_pid).children(recursive=True)
        return max((int(child.memory_info().rss) for child in children), default=None)
    return None


def _peak_in_proc(parent_pid: int) -> int | None:
    peaks = []
    for status in Path("/proc").glob("[0-9]*/status"):
        with contextlib.suppress(OSError):  # it has ended meanwhile
            text = status.read_text(errors="replace")
            if _number(text, "PPid") == parent_pid and (peak := _number(text, "VmHWM")) is not None:
                peaks.append(peak * 1024)
    return max(peaks, default=None)


def _number(status: str, name: str) -> int | None:
    found = re.search(rf"^{name}:\s+(\d+)", status, re.MULTILINE)
    return int(found[1]) if found else None
