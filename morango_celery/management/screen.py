"""Output of a command that looks again and again."""

from __future__ import annotations

import shutil
from typing import Any


class Screen:
    """Output that replaces itself on a terminal; elsewhere, only new lines are written."""

    def __init__(self, stream: Any) -> None:
        self._stream = stream
        self._before: list[str] = []

    def show(self, lines: list[str]) -> None:
        if self._stream.isatty():
            width = shutil.get_terminal_size().columns
            lines = [line[:width] for line in lines]
            above = f"\x1b[{len(self._before)}F\x1b[J" if self._before else ""
            self._stream.write(above + "\n".join(lines))
        elif lines != self._before:
            self._stream.write("\n".join(lines))
        self._before = lines
